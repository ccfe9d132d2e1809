"""As it was."""

from importlib import import_module

Migration = import_module("tests.django_project.usuarios.migrations.0001_initial").Migration
