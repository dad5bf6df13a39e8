"""Row-level security by trying: what a tenant reaches of another's, by whatever it asks."""

import psycopg
import pytest

from rag.schema import as_tenant
from rag.search import Filter, Query, neighbours, search
from tests.fix_rag import Connection, Store

SECRET = "The vault opens at noon."


@pytest.fixture
def ours(conn: Connection) -> Store:
    Store(conn, tenant="theirs").index({"vault.md": SECRET})
    ours = Store(conn, tenant="ours")
    ours.index({"ours.md": "The door opens at ten."})
    return ours


@pytest.mark.parametrize(
    "where",
    [
        Filter(under="vault.md"),
        Filter(under="' or tenant = 'theirs"),
        Filter(under="') or true --"),
        Filter(kinds=("markdown", "') or tenant in ('theirs"), under="%"),
        Filter(kinds=("theirs",)),
    ],
)
def test_a_forged_filter_gives_nothing_of_anothers(ours: Store, where: Filter) -> None:
    assert ours.search("When does the vault open?", 5, where=where) == ()


def test_a_search_in_anothers_table_under_ones_own_name_finds_nothing(ours: Store) -> None:
    theirs = Store(ours.conn, tenant="theirs")
    vector = ours.embedder.embed([SECRET])[0]
    assert [hit.chunk.text for hit in theirs.search(SECRET, 1)] == [SECRET]
    from dataclasses import replace

    forged = replace(theirs.live, tenant="ours")
    assert search(ours.conn, forged, Query(vector, SECRET, 5)) == ()
    stolen = theirs.search(SECRET, 1)[0].chunk.id
    assert neighbours(ours.conn, forged, stolen) == () == neighbours(ours.conn, ours.live, stolen)


@pytest.mark.parametrize("tenant", ["", "' or '1'='1", "THEIRS", "theirs ", "%"])
def test_no_other_name_is_a_tenants(ours: Store, tenant: str) -> None:
    table = Store(ours.conn, tenant="theirs").live.table
    with as_tenant(ours.conn, tenant, reader=True):
        for query in ("select source from generation, document", "select id from generation"):
            assert ours.conn.execute(query).fetchall() == []
        assert ours.conn.execute(psycopg.sql.SQL("select * from {}").format(table)).fetchall() == []


def test_a_reader_without_a_tenant_sees_nothing_and_changes_nothing(ours: Store) -> None:
    with ours.conn.transaction():
        ours.conn.execute("set local role rag_reader")
        assert ours.conn.execute("select * from document").fetchall() == []
    for change in ("delete from document", "update generation set tenant = 'ours'", "create table mine (x integer)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), as_tenant(ours.conn, "theirs", reader=True):
            ours.conn.execute(change)


def test_an_owner_that_is_no_superuser_is_held_by_the_policy_too(database: str, conn: Connection) -> None:
    conn.execute("create extension if not exists vector")
    owner = f"owner_{conn.info.dbname}"
    conn.execute(f"create role {owner} createrole nologin")
    conn.execute(f"grant all on schema public to {owner}")
    conn.execute(f"grant rag_reader to {owner}" if _has_reader(conn) else "select 1")
    conn.execute(f"set role {owner}")
    try:
        Store(conn, tenant="theirs").index({"vault.md": SECRET})
        ours = Store(conn, tenant="ours")
        ours.index({"ours.md": "The door opens at ten."})
        assert [hit.chunk.source for hit in ours.search(SECRET, 5)] == ["ours.md"]
        with as_tenant(conn, "ours"):
            assert conn.execute("select source from document").fetchall() == [("ours.md",)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                conn.execute("insert into document values (1, 'theirs', 'forged.md', '')")
    finally:
        conn.execute("reset role")
        conn.execute(f"drop owned by {owner} cascade")
        conn.execute(f"drop role {owner}")


def _has_reader(conn: Connection) -> bool:
    return conn.execute("select from pg_roles where rolname = 'rag_reader'").fetchone() is not None
