"""`plume-embed`, `python -m plume_embed` and `accelerate launch -m plume_embed`: the command line.

Nothing is imported before Ctrl-C is taken care of: the console script starts here, too.
"""


def main() -> None:
    """Runs the command line of this process; see `plume_embed.cli.main.main` for the exit codes."""
    try:
        from plume_embed.cli.interrupts import end_at_once

        end_at_once()
        from plume_embed.cli import collector
        from plume_embed.freed_memory import keep_freed_memory

        collector.wait()
        keep_freed_memory()
        from plume_embed.cli.main import main as run
    except KeyboardInterrupt:  # before `end_at_once` was called
        import sys

        from plume_embed.cli.interrupts import EXIT_CODE, LINE

        print(LINE, file=sys.stderr)
        sys.exit(EXIT_CODE)
    run()


if __name__ == "__main__":
    main()
