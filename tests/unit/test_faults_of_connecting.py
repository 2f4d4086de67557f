"""Messages of connecting that this machine can't produce, and errors that no database raised."""

from __future__ import annotations

import socket

import psycopg
import pytest
from psycopg.errors import FinishedPGconn
from sqlalchemy import exc

from replstore.databases.base import Fault
from replstore.databases.postgresql.faults import classify

REFUSED = "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?\n"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (f'connection to server at "db" (10.0.0.1), port 5432 failed: {REFUSED}', Fault.REFUSED),
        ('connection to server at "db" (10.0.0.1), port 5432 failed: Connection refused (0x0000274D/10061)\n\tIs …', Fault.REFUSED),
        (f"Verbindung zum Server auf »db« (10.0.0.1), Port 5432 fehlgeschlagen: {REFUSED}", Fault.REFUSED),
        ('connection to server at "localhost" (::1), port 5432 failed: Cannot assign requested address\n\tIs …', Fault.REFUSED),
        ('connection to server at "db" (10.0.0.1), port 5432 failed: Cannot assign requested address\n\tIs …', Fault.LOCKED_OUT),
        ('connection to server at "db" (10.0.0.1), port 5432 failed: No route to host\n\tIs …', Fault.SILENT),
        ('connection to server at "db" (10.0.0.1), port 5432 failed: Connection timed out\n\tIs …', Fault.SILENT),
        ('connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  das Datenbanksystem startet', Fault.LOCKED_OUT),
        (
            'connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  database "the database system is starting up" does not exist',
            Fault.LOCKED_OUT,
        ),
        ('could not open certificate file "/home/me/.postgresql/postgresql.crt": No such file or directory', Fault.LOCKED_OUT),
        ("something that nobody has seen", Fault.LOCKED_OUT),
    ],
)
def test_message_of_another_system(message: str, fault: Fault) -> None:
    assert classify(psycopg.OperationalError(f"connection failed: {message}", pgconn=FinishedPGconn())) is fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(), Fault.REFUSED),
        (FileNotFoundError(), Fault.REFUSED),
        (TimeoutError(), Fault.SILENT),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Fault.SILENT),
        (ConnectionResetError(), Fault.LOST_CONNECTION),
        (BrokenPipeError(), Fault.LOST_CONNECTION),
        (PermissionError(), Fault.LOCKED_OUT),
        (exc.TimeoutError(), Fault.TIMEOUT),
        (exc.InvalidRequestError(), Fault.CALLER),
        (ValueError(), Fault.CALLER),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_error_of_the_system_or_of_sqlalchemy(error: BaseException, fault: Fault) -> None:
    assert classify(error) is fault
