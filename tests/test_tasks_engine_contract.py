"""The running engine's pages and log against the promise: a small server answers as vLLM 0.32 does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from serving.fit.contract import Contract, ContractBroken, compare, hold
from tasks.engine_contract import read_actual, served_version, summary
from tasks.whole_file import write_whole
from tests import fix_outcome as made

CPU_LOG = (Path(__file__).with_name("data") / "vllm_logs" / "cpu-0.32.log").read_text()
METRICS = (
    'vllm:cache_config_info{block_size="128",engine="0",kv_cache_max_concurrency="3.5",kv_cache_size_tokens="14336",'
    'num_gpu_blocks="None"} 1.0\n'
)


class Engine:
    """`length` is what /v1/models says."""

    length = 4096
    url = ""


@pytest.fixture
def vllm() -> Iterator[Engine]:
    engine = Engine()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = {"id": "base", "max_model_len": engine.length}
            pages = {
                "/version": json.dumps({"version": "0.32.0+cpu"}),
                "/metrics": METRICS,
                "/v1/models": json.dumps({"data": [base, {"id": "adapter", "max_model_len": None}]}),
            }
            body = pages[self.path].encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    engine.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield engine
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_version_is_named_without_its_build(vllm: Engine) -> None:
    assert served_version(vllm.url) == "0.32.0"


def test_pages_count_before_the_log(vllm: Engine) -> None:
    actual = read_actual(vllm.url, CPU_LOG)
    assert (actual.max_model_len, actual.kv_cache_tokens, actual.concurrency) == (4096, 14336, 3.5)
    assert (actual.device, actual.engine_version) == ("CPU", "0.32.0")


def test_a_promise_is_kept_without_a_log(vllm: Engine) -> None:
    contract = hold(compare(made.fit(), read_actual(vllm.url, "")))
    assert (contract.promised_max_model_len, contract.given_max_model_len) == (4096, 4096)
    assert summary(contract) == "kept: 4096 tokens given, 4096 promised"


def test_a_shorter_context_breaks_the_promise(vllm: Engine) -> None:
    vllm.length = 2048
    contract = compare(made.fit(), read_actual(vllm.url, ""))
    assert summary(contract) == "broken: 2048 tokens given, 4096 promised"
    with pytest.raises(ContractBroken, match="serves 2048 tokens a sequence; the fit report promised 4096"):
        hold(contract)


def test_another_version_is_told(vllm: Engine) -> None:
    from dataclasses import replace

    contract = compare(replace(made.fit(), engine_version="0.23.0"), read_actual(vllm.url, ""))
    assert "The engine is vLLM 0.32.0; the estimate is of 0.23.0." in contract.notes


def test_what_is_kept_reads_back_the_same(vllm: Engine, tmp_path: Path) -> None:
    contract = compare(made.fit(), read_actual(vllm.url, CPU_LOG))
    write_whole(tmp_path / "a" / "contract.json", json.dumps(asdict(contract)))
    text = (tmp_path / "a" / "contract.json").read_text()
    assert TypeAdapter(Contract).validate_python(json.loads(text)) == contract
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["contract.json"]
