"""Puts into the wheel what a checkout has beside the package: the SQL, the mails and the example of the settings."""

from pathlib import Path
from shutil import copyfile, copytree, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

CHECKOUT = Path(__file__).resolve().parent
# Everything that a build leaves lies there. In plugins/, Airflow would find the package a second time.
BUILD = CHECKOUT / "build"
BUILD.mkdir(exist_ok=True)


class WithProject(build_py):
    """Copies them into ``clinic_backups/project``. An editable installation uses the checkout's own."""

    def run(self) -> None:
        if getattr(self, "editable_mode", False):
            super().run()
            return
        # Files of an earlier build, which are gone by now, must not get into this wheel.
        rmtree(self.build_lib, ignore_errors=True)
        super().run()
        project = Path(self.build_lib) / "clinic_backups" / "project"
        project.mkdir(parents=True, exist_ok=True)
        for folder in ("sql", "email"):
            copytree(CHECKOUT / "include" / folder, project / folder, dirs_exist_ok=True)
        copyfile(CHECKOUT / ".env.example", project / "env.example")


setup(cmdclass={"build_py": WithProject}, options={"egg_info": {"egg_base": BUILD.name}})
