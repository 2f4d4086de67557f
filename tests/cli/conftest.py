from tests.cli.fix_command import forks, probe, run

__all__ = ["forks", "probe", "run"]
