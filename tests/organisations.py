#!/usr/bin/env python3
"""Judges flowtrail on generated organisations, against their truth: names, attacks found, false alarms, order of arrival.

    tests/organisations.py --bin target/release/flowtrail [--seeds 20] [--seed 1] [--accounts 3] [--functions 24] [--days 21]
                           [--start TIME] [--attacks all] [--orders 20] [--jobs 2] [--work DIR]

For every seed an organisation is generated, replayed and compared with its `truth.json`, then removed. A row a seed, a row a kind of
attack, every finding that no attack explains; exit 1 on a miss. What must hold:

- 0 wrong names, in `eni_owners`, on every flow record and in the findings. Wrong is `exact` that is not the truth, or the truth missing
  from the candidates.
- `exact` on at least 95 % of the flow records of interfaces that one function alone could have used, from 15 minutes before on.
- Every flow record has an attribution; the summary, `coverage` and `flows` agree on how many.
- Every kind of attack of the five detectors is found by its detector, in at least 95 % of the organisations.
- At most one finding of medium or more in 1,000 entity-days that no attack explains.
- The same findings for one pass, the objects shuffled, every object twice, three runs over parts, and one thread (the first
  `--orders` seeds).

Needs Python 3.9 and pyarrow (`tests/services/services install moto` puts it into target/venv).
"""
import argparse
import bisect
import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

COVERED = ("new_peer", "new_api_call", "threat_list", "scan", "privilege_escalation")
# Columns that tell of the run, not of the logs (design/guarantees.md section 3 of the project).
OF_THE_RUN = {"revision", "status", "sealed", "seen_at", "delivered_at"}
LONGEST_INVOCATION = 900
FOREVER = 1 << 40


def epoch(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def seconds(value):
    if value is None or isinstance(value, int):
        return value
    return int(value.replace(tzinfo=value.tzinfo or datetime.timezone.utc).timestamp())


def files_of(out, table):
    return sorted(str(path) for path in (out / table).rglob("*.parquet"))


def rows(out, table):
    """All rows of a table as dicts, with `dt` from the folder's name."""
    found = []
    for path in sorted((out / table).rglob("*.parquet")):
        day = next((part[3:] for part in path.parts if part.startswith("dt=")), None)
        found.extend({**row, "dt": day} for row in pyarrow.parquet.ParquetFile(path).read().to_pylist())
    return found


def latest(table_rows):
    """Of a table that is written as a snapshot a day: each account's last day."""
    last = {}
    for row in table_rows:
        last[row["account_id"]] = max(last.get(row["account_id"], ""), row["dt"] or "")
    return [row for row in table_rows if (row["dt"] or "") == last[row["account_id"]]]


def standing(out):
    """Findings that stand: the last revision of each id, unless it is withdrawn."""
    last = {}
    for row in rows(out, "findings"):
        if row["finding_id"] not in last or row["revision"] > last[row["finding_id"]]["revision"]:
            last[row["finding_id"]] = row
    return {key: row for key, row in last.items() if row["status"] != "withdrawn"}


def comparable(findings):
    """Findings as two runs are compared by: where a file lay differs between copies, an event's id and a line do not."""
    kept = {}
    for key, row in findings.items():
        row = {k: v for k, v in row.items() if k not in OF_THE_RUN and k != "dt"}
        row["evidence"] = sorted(str(e.get("event_id") or e.get("position")) for e in row.get("evidence") or [])
        kept[key] = json.dumps(row, default=str, sort_keys=True)
    return kept


def difference(a, b):
    """What differs between two sets of comparable findings, or None."""
    missing, extra = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    differ = [key for key in sorted(a) if key in b and a[key] != b[key]]
    if not (missing or extra or differ):
        return None
    said = f"{len(missing)} missing, {len(extra)} extra, {len(differ)} differ"
    if differ:
        x, y = json.loads(a[differ[0]]), json.loads(b[differ[0]])
        said += "; first: " + json.dumps({k: [x.get(k), y.get(k)] for k in x if x.get(k) != y.get(k)}, default=str)[:400]
    else:
        said += "; first: " + (a[missing[0]] if missing else b[extra[0]])[:400]
    return said


class Holdings:
    """The truth about interfaces: which functions could use one, and which did, when."""

    def __init__(self, names):
        self.of = collections.defaultdict(list)
        for name in names:
            self.of[name["eni"]].append((epoch(name["from"]), epoch(name["to"]) if name["to"] else FOREVER, frozenset(name["could"]), frozenset(name["did"])))
        for spans in self.of.values():
            spans.sort(key=lambda span: span[:2])

    def over(self, eni, first, last):
        """(could, did, whole): functions at some time of [first, last], and whether somebody is known all the time."""
        spans = self.of.get(eni)
        if spans is None:
            return None
        could, did, reached = set(), set(), first
        begin = max(0, bisect.bisect_right(spans, (first, FOREVER)) - 1)
        for start, end, c, d in spans[begin:]:
            if start > last:
                break
            if end > first:
                could |= c
                did |= d
                if start <= reached:
                    reached = max(reached, end)
        return could, did, reached > last


class Seed:
    """One organisation: what was found, and what was missed."""

    def __init__(self, number, args, work):
        self.number, self.args, self.work = number, args, work
        self.wrong, self.misses, self.loud, self.attacks, self.cells = [], [], [], [], {}
        self.entity_days = 0

    def flowtrail(self, *words, ok=(0,)):
        done = subprocess.run([self.args.bin, *map(str, words)], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
        if done.returncode not in ok:
            raise RuntimeError(f"{' '.join(map(str, words))[:200]} ended with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def replay(self, inputs, out, *extra):
        return json.loads(self.flowtrail("replay", *inputs, "--out", out, "--json", "--list", f"c2={self.root / 'lists/c2.csv'}", *extra))

    def run(self):
        args = self.args
        self.root = self.work / f"org-{self.number}"
        start = ["--start", args.start] if args.start else []
        self.flowtrail("generate", "--out", self.root, "--seed", self.number, "--accounts", args.accounts, "--functions", args.functions,
                       "--days", args.days, "--attacks", args.attacks, *start)
        self.truth = json.loads((self.root / "truth.json").read_text())
        self.holdings = Holdings(self.truth["names"])
        self.inputs = [path for path in sorted(self.root.iterdir()) if path.name not in ("truth.json", "lists")]
        out = self.work / f"out-{self.number}"
        self.summary = self.replay(self.inputs, out, "--tables", "findings,profiles,eni_owners,coverage,flows")
        self.findings = standing(out)
        self.owners(out)
        self.flows(out)
        self.alarms(out)
        if self.number - args.seed < args.orders:
            self.orders(out)
        shutil.rmtree(out, ignore_errors=True)
        if not args.keep:
            shutil.rmtree(self.root, ignore_errors=True)
        return self

    # Names

    def owners(self, out):
        by_eni = collections.defaultdict(list)
        for row in latest(rows(out, "eni_owners")):
            by_eni[row["eni_id"]].append(row)
        exact = single = 0
        for name in self.truth["names"]:
            start, end = epoch(name["from"]), epoch(name["to"]) if name["to"] else FOREVER
            could, did = set(name["could"]), set(name["did"])
            over = []
            for row in by_eni[name["eni"]]:
                a, b = seconds(row["valid_from"]) or 0, seconds(row["valid_to"]) or FOREVER
                common = min(b, end) - max(a, start)
                # Half an hour: between two snapshots a change has no exact time.
                if common <= 1800:
                    continue
                over.append((common, row["attribution"]))
                candidates = {c["arn"] for c in row["candidates"] or []} | ({row["owner"]} if row["owner"] else set())
                if row["attribution"] == "exact" and could != {row["owner"]} or not did <= candidates:
                    self.wrong.append(f"eni_owners {name['eni']} {name['from']}: {row['attribution']} {row['owner']}, could {sorted(could)}, did {sorted(did)}")
            if end - start > 7200:
                if did and not over:
                    self.wrong.append(f"eni_owners {name['eni']} {name['from']}: no row")
                if len(could) == 1:
                    single += 1
                    exact += bool(over) and max(over)[1] == "exact"
        self.cells["holdings"] = f"{exact}/{single}"

    def flows(self, out):
        columns = ["interface_id", "start", "end", "attribution", "function_arn"]
        read = pyarrow.dataset.dataset(files_of(out, "flows"), format="parquet").to_table(columns=columns + ["source_key", "position"])
        total = read.num_rows
        grouped = read.group_by(columns).aggregate([("position", "count")]).to_pylist()
        of = collections.Counter()
        exact = single = 0
        said = collections.Counter()
        for row in grouped:
            count, attribution = row["position_count"], row["attribution"]
            of[attribution] += count
            if attribution is None:
                continue
            first, last = seconds(row["start"]), seconds(row["end"])
            truth = self.holdings.over(row["interface_id"], first, last)
            function = row["function_arn"]
            if truth is None:
                # Nobody's but its owner's: a database, an instance.
                if function is not None or attribution in ("exact", "candidates"):
                    said[f"flow record of {row['interface_id']}, no function's: {attribution} {function}"] += count
                continue
            could, did, _ = truth
            if attribution == "exact" and could != {function} or attribution != "exact" and function is not None:
                said[f"flow record of {row['interface_id']}: {attribution} {function}, could {sorted(could)}"] += count
            if attribution in ("other", "unheld") and could:
                said[f"flow record of {row['interface_id']}: {attribution}, could {sorted(could)}"] += count
            before, _, whole = self.holdings.over(row["interface_id"], first - LONGEST_INVOCATION, last)
            if whole and len(before) == 1:
                single += count
                exact += count if attribution == "exact" else 0
        self.wrong += [f"{count} x {what}" for what, count in sorted(said.items())]
        share = exact / single if single else 1
        self.cells["records"], self.cells["exact"] = total, f"{100 * share:.2f} %"
        if share < 0.95:
            self.misses.append(f"exact on {100 * share:.1f} % of {single} flow records that one function alone could have made")
        records, attribution = self.summary["records"], self.summary["attribution"]
        unnamed = records["nodata"] + records["skipdata"] + records["unplaced"]
        judged = [row for row in rows(out, "coverage") if row["source"] == "judged"]
        sums = {key: sum(row.get(f"attribution_{key}", row.get(key)) or 0 for row in judged) for key in attribution}
        self.same("flow records in the summary and in `flows`", records["flow"], total)
        self.same("records with an attribution in the summary and with addresses", sum(attribution.values()), records["flow"] - unnamed)
        self.same("records without one in `flows` and without addresses", of[None], unnamed)
        self.same("attribution in the summary and in `coverage`", attribution, sums)
        self.cells["unknown"] = attribution["unknown"]
        # The two tables look at another span (a batch, an hour), so exact and candidates may differ a little, never the others.
        for key in ("other", "unheld", "unknown"):
            self.same(f"{key} in the summary and in `flows`", attribution[key], of[key])
        self.named(read)

    def named(self, read):
        """Candidates of network findings, against the truth about the interfaces that their evidence lies in."""
        wanted = {(e["key"], e["position"]) for f in self.findings.values() if f["entity_kind"] in ("network", "interface") for e in f["evidence"] or []}
        keys = pyarrow.array(sorted({key for key, _ in wanted}), pyarrow.string())
        if not len(keys):
            return
        cited = read.filter(pyarrow.compute.is_in(read["source_key"].cast(pyarrow.string()), value_set=keys))
        places = {}
        for row in cited.to_pylist():
            if (row["source_key"], row["position"]) in wanted:
                places[row["source_key"], row["position"]] = row
        for finding in self.findings.values():
            if finding["entity_kind"] not in ("network", "interface"):
                continue
            candidates = {c["arn"] for c in finding["candidates"] or []}
            for evidence in finding["evidence"] or []:
                row = places.get((evidence["key"], evidence["position"]))
                if row is None:
                    self.wrong.append(f"evidence of {finding['finding_id']} is no flow record: {evidence}")
                    continue
                truth = self.holdings.over(row["interface_id"], seconds(row["start"]), seconds(row["end"]))
                could, did, _ = truth or (set(), set(), True)
                if finding["attribution"] == "exact" and could != candidates or not (did & could) <= candidates:
                    self.wrong.append(f"finding {finding['finding_id'][:8]} {finding['title']!r}: {finding['attribution']} {sorted(candidates)}, could {sorted(could)}, did {sorted(did)}")
                    break

    def same(self, what, a, b):
        if a != b:
            self.misses.append(f"{what}: {a} and {b}")

    # Findings

    def near(self, row, attack):
        return (row["account_id"] == attack["account_id"] and seconds(row["window_start"]) <= epoch(attack["end"]) + 3600
                and seconds(row["window_end"]) >= epoch(attack["start"]))

    def about(self, row, attack):
        who = {row["entity_id"], *(c["arn"] for c in row["candidates"] or [])}
        return row["subject"] == attack["subject"] or attack["function"] in who

    def alarms(self, out):
        for attack in self.truth["attacks"]:
            told = [r for r in self.findings.values() if r["detector"] == attack["detector"] and self.near(r, attack) and self.about(r, attack)]
            best = max((r["severity_id"] for r in told), default=0)
            self.attacks.append((attack, best))
        for row in self.findings.values():
            if len(row["explanation"]) < 60 or not row["evidence"] or not row["next_steps"]:
                self.misses.append(f"finding {row['finding_id']} does not explain itself: {row['title']}")
            if row["severity_id"] < 3:
                continue
            near = [a for a in self.truth["attacks"] if self.near(row, a)]
            # A user who attacks has no function; whoever does it in that hour is the attacker.
            if not any(self.about(row, a) or a["function"] is None for a in near):
                self.loud.append(row)
        known = [row for row in latest(rows(out, "profiles")) if row["entity_kind"] != "principal"]
        self.entity_days = sum(max(1, row["age_days"]) for row in known)
        levels = collections.Counter(row["severity"] for row in self.findings.values())
        self.cells["findings"] = " ".join(f"{levels[level]}{level[0]}" for level in ("critical", "high", "medium", "low", "informational") if levels[level])

    # Order of arrival

    def orders(self, whole):
        base = comparable(self.findings)
        files = sorted(path for top in self.inputs for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file())
        rng = random.Random(self.number)
        made = []

        def fresh(name):
            path = self.work / f"{name}-{self.number}"
            made.append(path)
            return path

        def place(chosen, folder, rename=False):
            for path in chosen:
                under = f"{random.Random(str(path.relative_to(self.root))).getrandbits(32):08x}" if rename else ""
                target = folder / under / path.relative_to(self.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
            return folder

        def compare(what, out):
            if found := difference(base, comparable(standing(out))):
                self.misses.append(f"{what}: {found}")

        out = fresh("one-thread")
        self.replay(self.inputs, out, "--threads", 1)
        compare("one thread", out)
        out = fresh("shuffled")
        self.replay([place(rng.sample(files, len(files)), fresh("in-shuffled"), rename=True)], out, "--threads", 2)
        compare("shuffled, two threads", out)
        doubled = fresh("in-doubled")
        place(files, doubled / "a")
        place(files, doubled / "b", rename=True)
        out = fresh("doubled")
        again = self.replay([doubled], out)
        compare("every object twice", out)
        if again["units"]["duplicate"] < len(files):
            self.misses.append(f"every object twice: {again['units']['duplicate']} of {len(files)} copies known")
        parts = [rng.randrange(3) for _ in files]
        out = fresh("parts")
        for part in range(3):
            self.replay([place([f for f, p in zip(files, parts) if p == part], fresh(f"in-part{part}"))], out)
        compare("three runs over parts", out)
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        self.cells["orders"] = "same" if not any(m.split(":")[0] in ("one thread", "shuffled, two threads", "every object twice", "three runs over parts") for m in self.misses) else "DIFFER"


def table(head, body):
    cells = [head, *[[str(cell) for cell in row] for row in body]]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release/flowtrail")
    parser.add_argument("--seeds", type=int, default=20, help="how many organisations")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed")
    parser.add_argument("--accounts", type=int, default=3)
    parser.add_argument("--functions", type=int, default=24)
    parser.add_argument("--days", type=int, default=21)
    parser.add_argument("--start")
    parser.add_argument("--attacks", default="all")
    parser.add_argument("--orders", type=int, default=1 << 30, help="for so many seeds, compare the orders of arrival too (default: all)")
    parser.add_argument("--jobs", type=int, default=1, help="organisations at a time")
    parser.add_argument("--work", help="folder for what is generated (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="leave the organisations there")
    args = parser.parse_args()
    args.bin = str(pathlib.Path(args.bin).resolve())
    work = pathlib.Path(args.work or tempfile.mkdtemp(prefix="flowtrail-organisations-"))
    work.mkdir(parents=True, exist_ok=True)
    began, seeds = time.time(), []
    head = ["seed", "records", "exact", "holdings", "unknown", "findings", "wrong", "loud", "missed", "orders"]
    print("  ".join(head), flush=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for seed in pool.map(lambda number: Seed(number, args, work).run(), range(args.seed, args.seed + args.seeds)):
            seeds.append(seed)
            missed = [a["kind"] for a, best in seed.attacks if a["detector"] in COVERED and not best]
            print(seed.number, *(seed.cells.get(key, "-") for key in head[1:6]), len(seed.wrong), len(seed.loud), ",".join(missed) or "-",
                  seed.cells.get("orders", "-"), sep="  ", flush=True)
            for what in [*seed.wrong[:5], *seed.misses[:8]]:
                print("    -", what, flush=True)
            for row in seed.loud:
                print(f"    ! {row['severity']} {row['detector']} {row['window_start']:%F %H}h {row['account_id']} {row['title']}", flush=True)
    shutil.rmtree(work, ignore_errors=True) if not args.work and not args.keep else None

    print("\nattacks")
    of_kind = collections.defaultdict(list)
    for seed in seeds:
        for attack, best in seed.attacks:
            of_kind[attack["detector"], attack["kind"]].append(best)
    table(["detector", "kind", "found", "of", "medium or more"],
          [[d, k, sum(b > 0 for b in best), len(best), sum(b >= 3 for b in best)] for (d, k), best in sorted(of_kind.items(), key=lambda i: (i[0][0] not in COVERED, i[0]))])
    days, loud = sum(s.entity_days for s in seeds), sum(len(s.loud) for s in seeds)
    short = [f"{k}: {sum(b > 0 for b in best)} of {len(best)}" for (d, k), best in of_kind.items() if d in COVERED and sum(b > 0 for b in best) < 0.95 * len(best)]
    verdicts = [
        (not any(s.wrong for s in seeds), f"{sum(len(s.wrong) for s in seeds)} wrong names"),
        (not any(s.misses for s in seeds), f"{sum(len(s.misses) for s in seeds)} other misses (sums, shares, order)"),
        (not short, "every kind of attack of the five detectors found in 95 %" if not short else "found too seldom: " + "; ".join(short)),
        (1000 * loud <= days, f"{loud} findings of medium or more without an attack in {days} entity-days: {1000 * loud / max(1, days):.2f} in 1,000"),
    ]
    print()
    for held, what in verdicts:
        print("ok  " if held else "MISS", what)
    print(f"{len(seeds)} organisations, {time.time() - began:.0f} s")
    sys.exit(0 if all(held for held, _ in verdicts) else 1)


if __name__ == "__main__":
    main()
