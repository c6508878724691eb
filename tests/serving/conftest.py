"""Bundle, application and running service that the tests of the service share."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from helpers import services
from helpers.bundles import write
from scanbook.bundle import Bundle
from scanbook.serving.app import create_app


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that no test changes."""
    return write(tmp_path_factory.mktemp("shared") / "bundle")


@pytest.fixture(scope="session")
def app(bundle: Bundle) -> Flask:
    """The application of the bundle, which no test changes."""
    return create_app(bundle.folder)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the application, without cookies."""
    return app.test_client()


@pytest.fixture(scope="session")
def served(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Service]:
    """A running service. At the end it stops on SIGTERM; it has written no file and logged no failure."""
    folder = tmp_path_factory.mktemp("service")
    with services.running(bundle.folder, folder / "log", HOME=str(folder)) as service:
        yield service
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=15) == 0
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", service.port)) != 0
        log = service.log.read_text()
        assert "Traceback" not in log and " 500 " not in log and "Mustermann" not in log
        assert [path.name for path in folder.iterdir()] == ["log"]
