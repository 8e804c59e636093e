"""
Interpreters of their own, so that the kernel can tell one workload of the stack from another.

An attestor sees the path of the executable, and a Python program's executable is its interpreter:
two programs on one interpreter are the same to it. A copied binary beside a `pyvenv.cfg` is a
virtual environment (PEP 405) on the interpreter that runs this; what is installed here is there.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

_OURS: Final = Path(__file__).parents[2]  # where the package `taskmint` is imported from
_SITES: Final = {"site-packages", "dist-packages"}


def copied_interpreter(directory: Path) -> Path:
    """
    Make `directory`, which does not exist, a virtual environment; return its interpreter.

    1. Copy the running binary: its path is what /proc/PID/exe will show.
    2. Name the base installation, where the standard library is.
    3. Some builds look for libpython beside themselves: put a link there.
    4. Let it find what we find, `.pth` files of the site directories included.
    """
    interpreter = directory / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    shutil.copyfile("/proc/self/exe", interpreter)  # 1.
    interpreter.chmod(0o755)
    home = Path(sys.base_prefix) / "bin"
    (directory / "pyvenv.cfg").write_text(  # 2.
        f"home = {home}\ninclude-system-site-packages = false\n"
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = directory / "lib" / version / "site-packages"
    site_packages.mkdir(parents=True)
    for library in (Path(sys.base_prefix) / "lib").glob("libpython*.so*"):  # 3.
        (directory / "lib" / library.name).symlink_to(library)
    found = [path for path in sys.path if Path(path).name in _SITES or Path(path) == _OURS]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in found]
    (site_packages / "taskmint-stack.pth").write_text("".join(lines))  # 4.
    return interpreter
