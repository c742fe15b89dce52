"""`fisher-agent`: parse, call, map errors to exit codes. No logic.

Exit codes: 0 done; 1 failed while running; 2 configuration or usage; 3 unavailable; 130 interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fisher_agent import clihelp, clivalues
from fisher_agent import configfile as configuration
from fisher_agent.config import Config
from fisher_agent.console import Console
from fisher_agent.errors import BadFile, ConfigError, FisherError, Unavailable
from fisher_models import ending


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: idle threads spun, a quarter of a core of them
    arguments = parser().parse_args(argv)
    from fisher_agent.logs import configure

    configure("warning")  # on stderr: what a command prints is its result; the daemon and the demo set their own level
    try:
        return arguments.act(arguments) or 0
    except FisherError as error:
        for line in error.problems if isinstance(error, ConfigError) else (str(error),):
            print(f"fisher-agent: {line}", file=sys.stderr)
        if isinstance(error, ConfigError | BadFile):
            return 2
        return 3 if isinstance(error, Unavailable) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1


def entry() -> NoReturn:
    """What the console script runs."""
    ending.run(main)


class _Version(argparse.Action):
    """Prints the installed release, whose metadata is read only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"fisher-agent {version('fisher-agent')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="fisher-agent",
        description="Embeds, scores and alarms on the sensor feeds of machines.",
        epilog=clihelp.EXIT_CODES,
    )
    root.add_argument(
        "--config", type=Path, default=None, help="default: $FISHER_CONFIG or /etc/fisher-agent/config.toml"
    )
    root.add_argument("--version", action=_Version, nargs=0, help="print which release this is, and end")
    verbs = root.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, act: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text, epilog=f"example: {clihelp.EXAMPLES[name]}")
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        sub.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="the configuration file")
        sub.set_defaults(act=act)
        return sub

    verb("run", _run, "run the daemon")
    sub = verb("check", _check, "check the configuration; with --connect also what the sensors send")
    sub.add_argument("--connect", action="store_true", help="connect to everything and listen to the sensors")
    sub.add_argument("--seconds", type=clivalues.seconds, default=10.0, help="how long to listen (default 10)")
    sub.add_argument("--json", action="store_true")
    sub = verb("doctor", _doctor, "gather what support needs, without secrets, and say what is wrong and what mends it")
    sub.add_argument("--out", type=Path, default=None, metavar="FILE.tar.gz", help="default: in the present folder")
    sub.add_argument("--json", action="store_true")
    sub = verb("init", _init, "write a commented configuration")
    sub.add_argument("--output", type=Path, default=None, help="default: standard output")
    sub = verb("enroll", _enroll, "learn what normal running of a machine is, live or from recordings")
    sub.add_argument("--machine", required=True)
    sub.add_argument(
        "--duration", type=clivalues.duration, default=None, help="such as 10m, 90s, 1h (default: enroll.duration_s)"
    )
    sub.add_argument(
        "--from", dest="files", nargs="+", type=Path, default=None, metavar="FILE", help="recordings, or captures"
    )
    sub.add_argument(
        "--mode", default=None, help="the operating mode that is learnt; default: all that the machine goes through"
    )
    sub.add_argument("--dry-run", action="store_true", help="learn, report and back-test, and change nothing")
    sub.add_argument(
        "--accept",
        action="store_true",
        help="judge by what was learnt at the end of a maintenance; nothing is recorded",
    )
    sub.add_argument(
        "--rename", nargs="+", default=None, metavar="MODE=NAME", help="name enrolled modes; nothing is recorded"
    )
    sub.add_argument("--fault", default=None, metavar="CLASS", help="learn this fault instead of normal running")
    _recording_options(sub)
    sub = verb("score", _score, "score recordings offline, through the same pipeline")
    sub.add_argument("--machine", required=True)
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording, or the folder of a capture")
    _recording_options(sub)
    sub = verb("replay", _replay, "publish recordings as a sensor would")
    sub.add_argument("--machine", required=True)
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording, or the folder of a capture")
    sub.add_argument("--speed", type=float, default=1.0, help="times real time (default 1)")
    sub.add_argument("--to", choices=["mqtt", "zmq"], required=True, help="over what to publish")
    sub.add_argument("--prefix", required=True, help="put before every topic; the plant's own prefix is refused")
    _recording_options(sub)
    for name, act, text in (
        ("machines", _machines, "the machines of the configuration and their banks"),
        ("status", _status, "what the daemon is doing, and what is not as it should be"),
        ("alarms", _alarms, "the alarms and their states"),
        ("topics", _topics, "every topic and key that is published, with its type"),
    ):
        verb(name, act, text).add_argument("--json", action="store_true")
    sub = verb("banks", _banks, "list the banks, or rebuild them for the present bundle and window")
    sub.add_argument("action", nargs="?", choices=["list", "rebuild"], default="list", help="default: list")
    sub.add_argument("--machine", default=None)
    sub.add_argument("--json", action="store_true")
    sub = verb(
        "captures", _captures, "list the captures: raw waveforms around alarms; replay and score take their folder"
    )
    sub.add_argument("--machine", default=None)
    sub.add_argument("--json", action="store_true")
    sub = verb("rollback", _rollback, "judge a machine by its previous bank")
    sub.add_argument("--machine", required=True)
    sub.add_argument("--dry-run", action="store_true", help="only say what the back-test says")
    sub = verb("confirm", _confirm, "end a machine's probation: its limit is good; or call an alarm in it false")
    sub.add_argument("--machine", required=True)
    sub.add_argument("--false-alarm", type=int, default=None, metavar="OCCURRENCE", help="this alarm was false; go on")
    sub.add_argument("--by", default="")
    sub = verb("forget", _forget, "delete every bank of a machine")
    sub.add_argument("--machine", required=True)
    for name, text in (
        ("ack", "acknowledge one occurrence of an alarm"),
        ("shelve", "put an alarm aside for some time"),
        ("unshelve", "take a shelved alarm back before its time"),
        ("suppress", "keep an alarm from being shown, until it is unsuppressed"),
        ("unsuppress", "show an alarm again that somebody suppressed"),
        ("out-of-service", "take an alarm out of service, for maintenance"),
        ("in-service", "take an alarm into service again"),
    ):
        sub = verb(name, _command, text)
        sub.set_defaults(verb=name)
        sub.add_argument("--machine", required=True)
        sub.add_argument("--alarm", default="anomaly", help="as `fisher-agent alarms` names it (default anomaly)")
        if name == "ack":
            sub.add_argument("--occurrence", type=int, required=True, help="as `fisher-agent alarms` shows it")
        if name == "shelve":
            sub.add_argument("--for", dest="duration", type=clivalues.duration, required=True, help="such as 30m or 8h")
        sub.add_argument("--by", default="", help="who asks for it (default: the user)")
        sub.add_argument("--comment", default="", help="why")
    sub = verb(
        "build-engine", _build_engine, "build the TensorRT engine of the model for this box's GPU, ahead of time"
    )
    sub.add_argument("--json", action="store_true")
    sub = verb("keys", _keys, "make a CURVE key pair for a ZeroMQ source, or for what sends to it")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder that they are written to")
    sub.add_argument("name", metavar="NAME", help="of the files NAME.key (secret) and NAME.pub")
    sub = verb("demo", _demo, "the whole agent on one machine, with a fault that begins while you watch")
    sub.add_argument("--once", action="store_true", help="end after the story")
    sub.add_argument("--json", action="store_true", help="print one JSON object at the end")
    sub = verb("bench", _bench, "what this box can carry")
    sub.add_argument("--json", action="store_true")
    for action in (a for one in verbs.choices.values() for a in one._actions):
        action.help = action.help or clihelp.SHARED.get(next(iter(action.option_strings), ""))
    return root


def _recording_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--rate", type=float, default=None, help="samples per second, for npy, csv and parquet")
    sub.add_argument(
        "--channel", action="append", default=[], metavar="ID=FILE[:COLUMN]", help="which column is which channel"
    )
    sub.add_argument("--json", action="store_true")


def _config(arguments: argparse.Namespace) -> Config:
    return configuration.load(_path(arguments))


def _path(arguments: argparse.Namespace) -> Path:
    return arguments.config or configuration.default_path()


def _show(arguments: argparse.Namespace, document: Any, lines: Callable[[Any], Sequence[str]]) -> None:
    if arguments.json:
        print(json.dumps(document))
    else:
        for line in lines(document):
            print(line)


# Imports stand inside these functions so that `--help` and a wrong option answer at once, without loading a runtime.


def _run(arguments: argparse.Namespace) -> None:
    from fisher_agent import app

    app.run(_path(arguments))


def _check(arguments: argparse.Namespace) -> int:
    from fisher_agent import check

    connect_s = arguments.seconds if arguments.connect else None
    return check.main(_path(arguments), connect_s=connect_s, json_=arguments.json)


def _doctor(arguments: argparse.Namespace) -> None:
    from fisher_agent.doctor import archive

    out = arguments.out or archive.default_out()
    findings, advice = archive.examine(_path(arguments))
    archive.write(findings, advice, out)
    _show(arguments, archive.document(findings, advice, out), archive.lines)


def _init(arguments: argparse.Namespace) -> None:
    from fisher_agent import check

    check.write_template(arguments.output)


def _enroll(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    if arguments.accept or arguments.rename:
        config, machine = _config(arguments), arguments.machine
        if arguments.accept:
            print(operate.accept(config, machine, dry_run=arguments.dry_run))
        else:
            print(operate.rename(config, machine, clivalues.renames(arguments.rename)))
        return
    with Console(quiet=arguments.json) as console:
        result = operate.enroll(
            _config(arguments),
            arguments.machine,
            duration_s=arguments.duration,
            files=arguments.files,
            mode=arguments.mode,
            fault=arguments.fault,
            rate_hz=arguments.rate,
            channels=arguments.channel,
            progress=console.progress,
            dry_run=arguments.dry_run,
        )
    _show(arguments, {"bank": result["bank"], "report": result["report"]}, lambda _: result["lines"])


def _score(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    rows = operate.score(
        _config(arguments),
        arguments.machine,
        arguments.files,
        rate_hz=arguments.rate,
        channels=arguments.channel,
    )
    _show(arguments, rows, operate.score_lines)


def _replay(arguments: argparse.Namespace) -> None:
    from fisher_agent import replaying

    with Console(quiet=arguments.json) as console:
        result = replaying.replay(
            _config(arguments),
            arguments.machine,
            arguments.files,
            to=arguments.to,
            prefix=arguments.prefix,
            speed=arguments.speed,
            rate_hz=arguments.rate,
            channels=arguments.channel,
            progress=console.progress,
        )
    _show(arguments, result, lambda r: [f"{r['messages']} messages, {r['seconds']:.1f} s of signal"])


def _machines(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    _show(arguments, operate.machines(_config(arguments)), operate.machine_lines)


def _status(arguments: argparse.Namespace) -> None:
    from fisher_agent import handling

    _show(arguments, handling.status(_config(arguments)), handling.status_lines)


def _alarms(arguments: argparse.Namespace) -> None:
    from fisher_agent import handling

    _show(arguments, handling.alarms(_config(arguments)), handling.alarm_lines)


def _topics(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate, topics

    config = _config(arguments)
    _show(arguments, topics.every_topic(config, operate.enrolled_faults(config)), topics.lines)


def _banks(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    config = _config(arguments)
    if arguments.action == "rebuild":
        with Console(quiet=arguments.json) as console:
            rebuilt = operate.rebuild(config, arguments.machine, progress=console.progress)
        _show(arguments, rebuilt, operate.rebuilt_lines)
    else:
        _show(arguments, operate.banks(config, arguments.machine), operate.bank_lines)


def _captures(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    _show(arguments, operate.captures(_config(arguments), arguments.machine), operate.capture_lines)


def _rollback(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    print(operate.rollback(_config(arguments), arguments.machine, dry_run=arguments.dry_run))


def _confirm(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    print(operate.confirm(_config(arguments), arguments.machine, false_alarm=arguments.false_alarm, by=arguments.by))


def _forget(arguments: argparse.Namespace) -> None:
    from fisher_agent import operate

    print(operate.forget(_config(arguments), arguments.machine))


def _command(arguments: argparse.Namespace) -> None:
    from fisher_agent import handling

    print(
        handling.command(
            _config(arguments),
            handling.asked(
                arguments.verb,
                arguments.machine,
                arguments.alarm,
                occurrence=getattr(arguments, "occurrence", None),
                duration_s=getattr(arguments, "duration", None),
                by=arguments.by,
                comment=arguments.comment,
            ),
        )
    )


def _build_engine(arguments: argparse.Namespace) -> None:
    from fisher_agent import app

    path = app.build_engine(_config(arguments))
    _show(arguments, {"engine": str(path)}, lambda built: [f"{built['engine']} is ready"])


def _keys(arguments: argparse.Namespace) -> None:
    from fisher_agent import keys

    print(*keys.lines(keys.write_pair(arguments.out, arguments.name)), sep="\n")


def _demo(arguments: argparse.Namespace) -> int:
    from fisher_agent.demo.story import main as play

    return play(once=arguments.once, json_=arguments.json)


def _bench(arguments: argparse.Namespace) -> None:
    from fisher_agent import bench

    bench.main(json_=arguments.json)


if __name__ == "__main__":
    entry()
