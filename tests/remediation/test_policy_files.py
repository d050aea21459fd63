"""Policy and playbook files: what is wrong in one is said with file, line, column, key and remedy."""

from __future__ import annotations

import pytest

from remediation.documents import DocumentError
from remediation.playbook import load_playbooks, parse_playbook
from remediation.policy import load_policy, parse_policy
from remediation.values import Decision

POLICY = """\
apiVersion: mendstream.io/v1
kind: RemediationPolicy
metadata: {name: prod}
spec:
  mode: enforce
  default: propose
  freezes:
    - {name: sale, start: 2026-12-20T00:00:00Z, end: 2027-01-03T00:00:00Z}
  limits:
    perTarget: {max: 1, per: 30m}
    global: {max: 10, per: 1h, concurrent: 2}
  rules:
    - name: first
      match: 'playbook.id == "restart-instance"'
      require: {minConfidence: 0.8, novelty: [known]}
      decision: auto
    - name: second
      match: 'target["service.name"] == "payment"'
      decision: approve
      approval: {roles: [sre], count: 1, timeout: 15m}
"""

BROKEN = {
    "a decision that does not exist": (
        ("decision: auto", "decision: automatic"),
        "p.yaml:16:7: spec.rules[0].decision: 'automatic' is none of never, shadow, propose, approve, auto",
    ),
    "a misspelt key": (
        ("decision: auto", "decison: auto"),
        "p.yaml:16:7: spec.rules[0].decison: unknown field; did you",
    ),
    "a missing key": (("      decision: auto\n", ""), "p.yaml:13:7: spec.rules[0].decision: required and missing"),
    "an unknown section": (
        ("  mode: enforce", "  mode: enforce\n  colour: red"),
        "p.yaml:6:3: spec.colour: unknown field",
    ),
    "a duration without a unit": (
        ("per: 30m", "per: 30"),
        "spec.limits.perTarget.per: 30 is no duration; write a number with",
    ),
    "a zero window": (("per: 1h,", "per: 0s,"), "p.yaml:11:23: spec.limits.global.per: zero is no window"),
    "a share above one": (
        ("minConfidence: 0.8", "minConfidence: 80"),
        "spec.rules[0].require.minConfidence: input should be",
    ),
    "a misspelt novelty": (
        ("[known]", "[frequent]"),
        "spec.rules[0].require.novelty[0]: 'frequent' is none of known, rare, novel",
    ),
    "a mode that does not exist": (("mode: enforce", "mode: on"), "spec.mode: True is none of shadow, enforce"),
    "a default that acts": (
        ("default: propose", "default: auto"),
        "p.yaml:6:3: spec.default: 'auto' would act on what no rule",
    ),
    "a condition that is not CEL": (
        ("playbook.id ==", "playbook.id &&&"),
        "p.yaml:14:7: spec.rules[0].match: not CEL at character",
    ),
    "a condition on an unknown name": (
        ("playbook.id ==", "book.id =="),
        "spec.rules[0].match: unknown name 'book'; here are playbook,",
    ),
    "a condition on an unknown field": (
        ("playbook.id ==", "playbook.name =="),
        "playbook has no field 'name'; it has id, labels",
    ),
    "a condition with an unknown function": (
        ('== "payment"', '== shell("x")'),
        "spec.rules[1].match: unknown function 'shell'",
    ),
    "a name used twice": (
        ("name: second", "name: first"),
        "p.yaml:17:7: spec.rules[1].name: 'first' is already rules[0]",
    ),
    "a name with a space": (
        ("name: second", "name: my rule"),
        "p.yaml:17:7: spec.rules[1].name: string should match pattern",
    ),
    "an approval nobody asks for": (
        ("decision: approve", "decision: auto"),
        "spec.rules[1].approval: nobody is asked when",
    ),
    "a freeze that ends before it starts": (
        ("end: 2027", "end: 2025"),
        "p.yaml:8:49: spec.freezes[0].end: not after start",
    ),
    "a freeze without a zone": (
        ("end: 2027-01-03T00:00:00Z", "end: 2027-01-03T00:00:00"),
        "has no time zone; write it with Z",
    ),
    "a freeze without a time": (
        ("end: 2027-01-03T00:00:00Z", "end: soon"),
        "spec.freezes[0].end: 'soon' is no moment; write RFC",
    ),
    "an empty rule list entry": (
        ("    - name: first\n", "    -\n    - name: first\n"),
        "spec.rules[0]: input should be",
    ),
    "a list where a mapping belongs": (
        ("metadata: {name: prod}", "metadata: [prod]"),
        "p.yaml:3:1: metadata: input should be",
    ),
    "another kind": (("RemediationPolicy", "Playbook"), "p.yaml:2:1: kind: 'Playbook' is none of RemediationPolicy"),
    "a key given twice": (
        ("  default: propose", "  mode: shadow"),
        "p.yaml:6:3: spec.mode: given twice (first on line 5)",
    ),
    "broken YAML": (("  mode: enforce", "  mode: [enforce"), "not valid YAML"),
    "a tag that would build an object": (
        ("mode: enforce", "mode: !!python/name:os.system x"),
        "p.yaml:5:9: spec.mode: cannot be",
    ),
    "a merge key": (("  mode: enforce", "  <<: {mode: enforce}"), "p.yaml:5:3: spec: key '<<' is not plain text"),
    "a second document": (("kind:", "---\nkind:"), "not valid YAML"),
    "nothing": ((POLICY, ""), "p.yaml:1:1: the document is empty; write keys: apiVersion, kind, metadata, spec"),
    "a scalar": ((POLICY, "42"), "p.yaml:1:1: the document is 42"),
}


def test_the_file_that_the_broken_ones_are_made_of_is_valid():
    policy = parse_policy(POLICY, "p.yaml")
    assert [rule.decision for rule in policy.spec.rules] == [Decision.AUTO, Decision.APPROVE]


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_broken_policy_is_refused_with_place_key_and_remedy(case):
    (old, new), message = BROKEN[case]
    assert old in POLICY
    with pytest.raises(DocumentError) as refused:
        parse_policy(POLICY.replace(old, new), "p.yaml")
    assert message in str(refused.value)
    assert all(str(problem).startswith("p.yaml:") for problem in refused.value.problems)


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file():
    text = (
        POLICY.replace("mode: enforce", "mode: yes").replace("decision: auto", "decision: go").replace("[sre]", "sre")
    )
    with pytest.raises(DocumentError) as refused:
        parse_policy(text, "p.yaml")
    assert [problem.line for problem in refused.value.problems] == [5, 16, 20]


def test_an_alias_bomb_and_a_huge_file_are_refused_quickly():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, after in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(DocumentError, match="more than 50000 values"):
        parse_policy(bomb, "p.yaml")
    with pytest.raises(DocumentError, match="nested too deeply"):
        parse_policy("a: &a\n  b: *a\n", "p.yaml")
    with pytest.raises(DocumentError, match="larger than"):
        parse_policy("#" * 1_100_000, "p.yaml")


def test_a_policy_that_says_nothing_acts_on_nothing():
    policy = parse_policy("{apiVersion: mendstream.io/v1, kind: RemediationPolicy, metadata: {name: x}, spec: {}}")
    assert (policy.spec.mode, policy.spec.default) == ("shadow", Decision.SHADOW)


def test_the_digest_is_of_the_meaning_not_of_the_spelling():
    policy = parse_policy(POLICY)
    respelt = POLICY.replace("30m", "1800s").replace("# ", "") + "# a comment\n"
    assert parse_policy(respelt).digest == policy.digest
    assert parse_policy(POLICY.replace("0.8", "0.81")).digest != policy.digest


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path):
    with pytest.raises(DocumentError, match="cannot be opened"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DocumentError, match="not UTF-8"):
        load_policy(tmp_path / "binary.yaml")


PLAYBOOK = """\
apiVersion: mendstream.io/v1
kind: Playbook
metadata: {name: restart, version: 1.0.0}
spec:
  trigger: {faultKind: [latency]}
  parameters:
    service: {type: string, required: true, from: 'target["service.name"]'}
    count: {type: integer, minimum: 1, default: 1}
  risk: {tier: low, reversible: false}
  preconditions: ['incident.state == "open"']
  steps:
    - {id: one, runner: fake, bind: {name: params.service}, on_success: two}
    - {id: two, runner: wait, with: {duration: 5s}}
"""

BROKEN_PLAYBOOKS = {
    "an unknown fault kind": (
        ("[latency]", "[slowness]"),
        "spec.trigger.faultKind[0]: 'slowness' is none of latency, error",
    ),
    "a step that is not there": (
        ("on_success: two", "on_success: too"),
        "p.yaml:12:61: spec.steps[0].on_success: 'too' is no step",
    ),
    "a step backwards": (
        ("{duration: 5s}", "{duration: 5s}, on_success: one"),
        "'one' does not come later; steps only go",
    ),
    "a step id used twice": (("id: two", "id: one"), "spec.steps[1].id: 'one' is taken"),
    "a template": (("{duration: 5s}", "{duration: '{{ x }}'}"), "'duration' holds a template, and none is filled in"),
    "a bind of telemetry": (
        ("params.service}", "target.name}"),
        "spec.steps[0].bind.name: unknown name 'target'; here are params",
    ),
    "a pattern that is not anchored": (
        ("required: true", "pattern: 'a+'"),
        "spec.parameters.service: pattern 'a+' is not anchored",
    ),
    "a pattern that is none": (("required: true", "pattern: '^(a$'"), "is no regular expression"),
    "a pattern of a number": (("minimum: 1,", "pattern: '^1$',"), "'pattern' is for strings, not for type 'integer'"),
    "a default that is refused": (("default: 1", "default: 0"), "its default is refused by itself"),
    "a reversible playbook without undo": (
        ("reversible: false", "reversible: true"),
        "reversible, yet there is no undo",
    ),
    "a file outside": (("runner: fake,", "runner: fake, file: ../../etc/passwd,"), "leaves the playbook's folder"),
    "a file that is not there": (("runner: fake,", "runner: fake, file: none.yml,"), "'none.yml' cannot be opened"),
    "a precondition on an unknown name": (("incident.state", "incident.colour"), "incident has no field 'colour'"),
    "no step": (
        (PLAYBOOK[PLAYBOOK.index("  steps:") :], "  steps: []\n"),
        "p.yaml:11:3: spec.steps: list should have at",
    ),
    "a version that is none": (("version: 1.0.0", "version: one"), "metadata.version: string should match pattern"),
}


@pytest.mark.parametrize("case", sorted(BROKEN_PLAYBOOKS))
def test_a_broken_playbook_is_refused_with_place_key_and_remedy(case, tmp_path):
    (old, new), message = BROKEN_PLAYBOOKS[case]
    assert parse_playbook(PLAYBOOK, "p.yaml").name == "restart"
    with pytest.raises(DocumentError) as refused:
        parse_playbook(PLAYBOOK.replace(old, new), "p.yaml", tmp_path)
    assert message in str(refused.value)


def test_a_playbooks_digest_covers_the_files_that_it_runs(tmp_path):
    text = PLAYBOOK.replace("runner: fake,", "runner: fake, file: act.yml,")
    (tmp_path / "play.yaml").write_text(text)
    (tmp_path / "act.yml").write_text("kind: Other\n")
    before = load_playbooks(tmp_path)["restart"].digest
    (tmp_path / "act.yml").write_text("kind: Other  # changed\n")
    assert load_playbooks(tmp_path)["restart"].digest != before


def test_a_folder_with_two_playbooks_of_one_name_or_with_none_is_refused(tmp_path):
    with pytest.raises(DocumentError, match="no playbook here"):
        load_playbooks(tmp_path)
    (tmp_path / "a.yaml").write_text(PLAYBOOK)
    (tmp_path / "b.yaml").write_text(PLAYBOOK)
    with pytest.raises(DocumentError, match="'restart' is used by another file"):
        load_playbooks(tmp_path)


def test_the_library_is_valid_and_a_policy_beside_the_playbooks_is_passed_over(library):
    assert sorted(library) == ["restart-instance", "rollback-deploy", "scale-out"]
