"""The command line from a checkout: `python cli.py ...` does what `retrieval-cl ...` does."""

from retrieval_cl.app import main

if __name__ == "__main__":
    main()
