"""What a policy spans: the one thing that the Vault plan is made from."""

from datetime import timedelta
from itertools import product

from policy.asking import REPORT, load
from taskmint.model.scope import Entitlement, EntitlementKind, ProofLevel
from taskmint.policy.enumerate import Combination, EnumeratedDefinition, enumerate_definitions


def test_enums_are_written_out() -> None:
    """One combination per value, each with its own policy and its exact path."""
    (report,) = enumerate_definitions(load(REPORT))

    assert report == EnumeratedDefinition(
        name="report",
        token_role="taskmint-task-report",
        dead_man=timedelta(seconds=60),
        deadline_max=timedelta(minutes=30),
        combinations=tuple(
            Combination(
                token_policy=f"taskmint-task-report.{region}",
                parameters={"region": region},
                entitlements=(
                    Entitlement(
                        name="warehouse",
                        kind=EntitlementKind.SECRET,
                        mount="database",
                        path=f"creds/ro-{region}",
                        proof=ProofLevel.LOGIN,
                    ),
                ),
            )
            for region in ("eu", "us")
        ),
    )


def test_the_product_of_enums_is_in_declared_order() -> None:
    """Parameters as declared, values as declared; the unused one is left out."""
    text = REPORT.replace(
        "{region: {enum: [eu, us]}}",
        "{size: {enum: [s, l]}, unused: {enum: [x, y]}, region: {enum: [eu, us]}}",
    ).replace("ro-{region}", "{region}-{size}")
    (report,) = enumerate_definitions(load(text))

    assert [combination.token_policy for combination in report.combinations] == [
        f"taskmint-task-report.{size}.{region}" for size, region in product("sl", ("eu", "us"))
    ]
    assert [combination.entitlements[0].path for combination in report.combinations] == [
        f"creds/{region}-{size}" for size, region in product("sl", ("eu", "us"))
    ]
    assert report.combinations[0].parameters == {"size": "s", "region": "eu"}


def test_what_is_no_enum_is_a_wildcard_segment() -> None:
    """Captures and other parameters: the server then enforces less than the daemon."""
    text = REPORT.replace('path: "creds/ro-{region}"', 'path: "creds/{region}-{job}/{job}/x"')
    (report,) = enumerate_definitions(load(text))

    assert {combination.entitlements[0].path for combination in report.combinations} == {
        "creds/+/+/x"
    }
    assert len(report.combinations) == 2


def test_a_definition_without_parameters_has_one_combination() -> None:
    """Its policy has the definition's name."""
    (report,) = enumerate_definitions(load(REPORT.replace("ro-{region}", "all")))

    assert [combination.token_policy for combination in report.combinations] == [
        "taskmint-task-report"
    ]
    assert report.combinations[0].parameters == {}


def test_definitions_come_in_order_of_name() -> None:
    """So that a plan is the same however the files were laid out."""
    policy = load(REPORT, REPORT.replace("report:", "alpha:"))

    assert [each.name for each in enumerate_definitions(policy)] == ["alpha", "report"]
