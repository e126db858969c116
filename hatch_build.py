"""Builds wheels: compiles the modules that every request goes through, where a C compiler is at hand.

The source stays plain Python, which is what an editable installation and a platform without a wheel run. mypyc turns
the modules that pyproject.toml lists for this hook into C extensions; ERG_COMPILE=0 leaves that out, and
ERG_COMPILE=1 makes it an error if it cannot be done.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "server"


class CompileHook(BuildHookInterface[Any]):
    """Adds the compiled modules to a wheel; without a compiler the wheel is a pure one."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together; an editable installation is left as it is."""
        wish = os.environ.get("ERG_COMPILE", "")
        if version == "editable" or wish == "0":
            return
        modules: list[str] = self.config["modules"]
        # Kept until this process ends, after the wheel has been written.
        self._scratch = tempfile.TemporaryDirectory(prefix="erg-compile-")
        self.app.display_info(f"compiling {len(modules)} modules of Erg with mypyc (about a minute)")
        try:
            extensions = compile_modules(Path(self.root, SOURCE), modules, Path(self._scratch.name))
        except (Exception, SystemExit) as error:
            if wish == "1":
                raise
            self.app.display_warning(
                f"Erg is installed without its compiled modules, which costs about half of its speed: {error}. "
                "It takes a C compiler and Python's headers (Debian: apt install gcc python3-dev)."
            )
            return
        for path, name in extensions.items():
            build_data["force_include"][str(path)] = name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_modules(source: Path, modules: list[str], scratch: Path) -> dict[Path, str]:
    """Compile modules of the packages in `source`.

    Args:
        source: the folder that the packages lie in.
        modules: paths of modules within it.
        scratch: an empty folder, where everything that is made lies.

    Returns:
        Where each extension lies, and where it belongs beside the packages.
    """
    # They come with a build of a wheel (pyproject.toml) and with nothing else.
    from mypyc.build import mypycify  # noqa: PLC0415
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    settings = scratch / "mypy.ini"
    # Libraries' types would speed nothing up, and a wheel is built without them.
    settings.write_text(
        "[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n"
        "explicit_package_bases = True\nnamespace_packages = True\n"
        f"cache_dir = {scratch / 'mypy'}\n"
    )
    before = Path.cwd()
    os.chdir(source)  # mypyc names modules by their paths from here
    try:
        made = mypycify(
            [f"--config-file={settings}", *modules], opt_level="3", target_dir=str(scratch / "c"), group_name="erg"
        )
        for extension in made:
            # Another folder each time: in the objects, it would make another wheel of the same source.
            extension.extra_compile_args = [*extension.extra_compile_args, f"-ffile-prefix-map={scratch}=erg"]
        command = build_ext(Distribution({"name": "erg", "ext_modules": made}))
        command.build_lib = str(scratch / "lib")
        command.build_temp = str(scratch / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    lib = scratch / "lib"
    return {path: path.relative_to(lib).as_posix() for path in sorted(lib.rglob("*.so"))}
