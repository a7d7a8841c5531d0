"""`python -m plume_embed` and `accelerate launch -m plume_embed`: the command line."""

from plume_embed.cli.main import main

if __name__ == "__main__":
    main()
