"""`python -m tests.fuzz NAME SECONDS FOLDER`: one parser under Atheris, which follows its branches (libFuzzer).

What is instrumented is `edge`; C and Rust below it (json, zlib, pydantic, OpenSSL) are only run. The corpus and what
crashed go to FOLDER. Exit code 0 when nothing crashed.
"""

import re
import sys
from pathlib import Path

MEMORY_MIB = 1024
"""Of the whole process, the fuzzer's own included: a bomb that gets through is found by it."""
INPUT_SECONDS = 10


def main(name: str, seconds: int, folder: Path) -> None:
    """Run; never returns."""
    import atheris  # noqa: PLC0415 - not there on every machine

    with atheris.instrument_imports(include=["edge"]):
        from tests.fuzz.parsers import BY_NAME  # noqa: PLC0415 - instrumented while it is imported

    parser = BY_NAME[name]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(parser.begin):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_bytes(b"# Of the seeds.\n" + b"".join(b'"%b"\n' % word for word in _words(parser.begin)))
    options = [
        f"-dict={words}",
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={parser.most}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], parser.try_bytes)
    atheris.Fuzz()


def _words(begin: tuple[bytes, ...]) -> list[bytes]:
    """What stands between quotes in the seeds: a fuzzer does not find `containerDefinitions` by itself."""
    found = {word for seed in begin for word in re.findall(rb'"([A-Za-z][A-Za-z0-9./_-]{1,63})"', seed)}
    return sorted(found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
