"""A model folder, or config.json (and the index beside it) alone, as a FileStore."""

from pathlib import Path

from serving.fit.model_files import CONFIG
from serving.fit.model_reader import ModelUnreadable

HUB_PREFIX = "models--"


class FolderStore:
    parallel = 1
    origin = "folder"

    def __init__(self, path: Path) -> None:
        """`path` is a folder, or a config.json: then the files beside it are the model. A JSON file of another name is
        a config.json without a model around it. Raises ModelUnreadable.
        """
        is_json = path.is_file() and path.suffix == ".json"
        self.folder = path.parent if is_json else path
        self._alone = path if is_json and path.name != CONFIG else None
        if not self.folder.is_dir() or (path.is_file() and not is_json):
            raise ModelUnreadable(f"{path} is no model folder; required: a folder or a {CONFIG}. Name one of them.")
        self.name = self._alone.stem.replace("__", "/") if self._alone else self.folder.resolve().name
        self.names = (self.name,) if self._alone else base_names(self.folder)

    def sizes(self) -> dict[str, int]:
        try:
            if self._alone:
                return {CONFIG: self._alone.stat().st_size}
            return {path.name: path.stat().st_size for path in self.folder.iterdir() if path.is_file()}
        except OSError as error:
            raise self._unreadable(error) from error

    def read(self, file: str, start: int, size: int) -> bytes:
        try:
            with (self._alone or self.folder / file).open("rb") as opened:
                opened.seek(start)
                return opened.read(size)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> ModelUnreadable:
        return ModelUnreadable(
            f"{self.folder} cannot be read ({error.strerror}); required: a readable model folder. Check its permissions."
        )


def base_names(base: Path) -> tuple[str, ...]:
    """What an adapter may call this base: the folder's name, also behind a link, or the id of a hub cache folder."""
    real = base.resolve()
    cached = [part.removeprefix(HUB_PREFIX).replace("--", "/") for part in real.parts if part.startswith(HUB_PREFIX)]
    return (base.absolute().name, real.name, *cached)
