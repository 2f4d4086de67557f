from tests.cli.fix_command import probe, run

__all__ = ["probe", "run"]
