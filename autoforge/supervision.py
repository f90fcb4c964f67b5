"""The supervisor configuration of `make serve`: web processes on one socket, workers, one beat."""

import resource
import sys
from pathlib import Path

from django.conf import settings

from autoforge.processes import shutdown_s

BACKLOG = 2048
# Each WebSocket is an open file; what the machine allows at most is taken below this.
_OPEN_FILES = 32_768

_TEMPLATE = """\
[supervisord]
nodaemon = true
logfile = {logs}/supervisord.log
logfile_maxbytes = 10MB
logfile_backups = 2
pidfile = {logs}/supervisord.pid
childlogdir = {logs}
minfds = {files}

[fcgi-program:web]
command = {python} manage.py process web --server {server}
socket = tcp://{host}:{port}
socket_backlog = {backlog}
numprocs = {web}
process_name = web%(process_num)d
{common}

[program:worker]
command = {python} manage.py process worker --name worker%(process_num)d
numprocs = {workers}
process_name = worker%(process_num)d
{common}

[program:beat]
command = {python} manage.py process beat
process_name = beat
{common}
"""

_COMMON = """\
directory = {base}
autorestart = true
startsecs = 2
startretries = 100000
stopwaitsecs = {stop_wait}
redirect_stderr = true
stdout_logfile = {logs}/%(program_name)s%(process_num)d.log
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 2"""


def configuration(*, host: str, port: int, web: int, workers: int, server: str, logs: Path) -> str:
    """An ini file for `supervisord -c`; logs and pid file go to `logs`."""
    base = settings.BASE_DIR
    common = _COMMON.format(base=base, stop_wait=shutdown_s() + 5, logs=logs)
    return _TEMPLATE.format(
        python=sys.executable,
        host=host,
        port=port,
        backlog=BACKLOG,
        files=min(_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1),
        web=web,
        workers=workers,
        server=server,
        logs=logs,
        common=common,
    ).replace("{logs}", str(logs))
