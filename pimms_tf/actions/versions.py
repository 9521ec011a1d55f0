"""Whether a folder can take one more exported version, told before anything is loaded."""

from pathlib import Path

from pimms_tf.errors import InputError


def check_output(base: Path, version: int | None = None) -> None:
    """Refuses a folder in which an export would fail, or lie among what is no export.

    Raises:
        InputError: `base` is a file, or a folder with other things but no numbered version, or has `version` already.
    """
    base = Path(base)
    above = next(folder for folder in (base, *base.absolute().parents) if folder.exists() or folder.is_symlink())
    if not above.is_dir():
        raise InputError(f"--output {base}: {above} is no folder; give the folder that is to hold numbered versions")
    if not base.exists():
        return
    names = sorted(item.name for item in base.iterdir() if not item.name.startswith("."))
    if names and not any(name.isdecimal() for name in names):
        listing = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        raise InputError(
            f"--output {base} holds {listing} and no exported version, and a server would be pointed at "
            f"it; give a folder of its own, such as {base / 'export'}"
        )
    if version is not None and (base / str(version)).exists():
        following = max(int(name) for name in names if name.isdecimal()) + 1
        raise InputError(
            f"version {version} is already in {base}, and a server may be reading it; give version {following} or "
            "remove the folder first"
        )
