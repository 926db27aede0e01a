"""Limits are set, changed and taken away by one service for every door; what makes no sense is refused in words."""

import pytest

from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import Conflict, NotFound, ValidationFailed
from apps.gateway.models import Limit, LimitUse
from apps.gateway.selectors import get_limit, plane_limits
from apps.gateway.services.limits import change_limit, keep_uses, kept_uses, remove_limit, set_limit
from tests.api.world import make_world
from tests.factories import make_key, make_role, make_tenant, make_user

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def world():
    return make_world()


def facts(world):
    with every_tenant(SYSTEM):
        return plane_limits([world.tenant.pk]).get(str(world.tenant.pk))


def test_a_limit_reaches_the_data_plane_as_it_was_set(world):
    with tenant_scope(world.tenant.pk, SYSTEM):
        made = set_limit(subject="api_key", api_key=world.key, amount=10, window="minute")
        set_limit(subject="tool", pattern=f"{world.server.slug}__*", measure="concurrent", amount=2, each=True)
        set_limit(subject="tenant", measure="spend", amount=5_000_000, window="month")
    found = facts(world)
    (one,) = found.by_subject[f"api_key:{world.key.pk}"]
    assert (one.measure, one.amount, one.window, one.each) == ("calls", 10, "minute", False)
    assert world.key.name in one.label
    assert [(limit.pattern, limit.measure, limit.each) for limit in found.tools] == [
        (f"{world.server.slug}__*", "concurrent", True)
    ]
    assert found.by_subject["tenant"][0].amount == 5_000_000
    with tenant_scope(world.tenant.pk, SYSTEM):
        change_limit(made, amount=3)
    assert facts(world).by_subject[f"api_key:{world.key.pk}"][0].amount == 3
    with tenant_scope(world.tenant.pk, SYSTEM):
        remove_limit(made)
        remove_limit(made)
        with pytest.raises(NotFound):
            change_limit(made, amount=1)
    assert f"api_key:{world.key.pk}" not in facts(world).by_subject


def test_a_limit_goes_with_what_it_was_on(world):
    with tenant_scope(world.tenant.pk, SYSTEM):
        set_limit(subject="role", role=world.spare_role, amount=1, window="day")
        world.spare_role.delete()
        assert not Limit.objects.filter(subject="role", target=f"role:{world.spare_role.pk}").exists()


BAD = {
    "no subject": ({"subject": "api_key", "amount": 1, "window": "day"}, "api_key"),
    "no pattern": ({"subject": "tool", "amount": 1, "window": "day"}, "pattern"),
    "a pattern that matches nothing": ({"subject": "tool", "pattern": "search", "amount": 1, "window": "day"}, "pattern"),
    "a pattern too many": ({"subject": "tenant", "pattern": "a__*", "amount": 1, "window": "day"}, "pattern"),
    "no window": ({"subject": "tenant", "amount": 1}, "window"),
    "a window of calls at once": ({"subject": "tenant", "measure": "concurrent", "amount": 1, "window": "day"}, "window"),
    "another window": ({"subject": "tenant", "amount": 1, "window": "week"}, "window"),
    "another measure": ({"subject": "tenant", "measure": "tokens", "amount": 1, "window": "day"}, "measure"),
    "another subject": ({"subject": "toolset", "amount": 1, "window": "day"}, "subject"),
    "less than nothing": ({"subject": "tenant", "amount": -1, "window": "day"}, "amount"),
    "more than there is": ({"subject": "tenant", "amount": 10**16, "window": "day"}, "amount"),
}


@pytest.mark.parametrize("given", BAD)
def test_a_limit_that_makes_no_sense(world, given):
    body, field = BAD[given]
    with tenant_scope(world.tenant.pk, SYSTEM), pytest.raises(ValidationFailed) as refused:
        set_limit(**body)
    assert field in refused.value.extra["errors"]
    assert not Limit.unscoped.filter(tenant=world.tenant).exclude(pk=world.limit.pk).exists()


def test_each_user_alone_is_for_what_many_share(world):
    with tenant_scope(world.tenant.pk, SYSTEM), pytest.raises(ValidationFailed) as refused:
        set_limit(subject="user", user=world.member, amount=1, window="day", each=True)
    assert "each" in refused.value.extra["errors"]


def test_what_belongs_to_others_has_no_limit_here(world):
    elsewhere = make_tenant()
    role, stranger = make_role(elsewhere, "tool.read"), make_user(elsewhere, make_role(elsewhere, "tool.read"))
    key, _ = make_key(stranger, elsewhere)
    with tenant_scope(world.tenant.pk, SYSTEM):
        for name, target in (("role", role), ("api_key", key), ("user", stranger)):
            with pytest.raises(ValidationFailed) as refused:
                set_limit(subject=name, amount=1, window="day", **{name: target})
            assert name in refused.value.extra["errors"]
        with pytest.raises(NotFound):
            get_limit("nothing")


def test_the_same_limit_twice_is_a_conflict(world):
    with tenant_scope(world.tenant.pk, SYSTEM):
        set_limit(subject="tenant", amount=1, window="day")
        set_limit(subject="tenant", amount=1, window="month")
        with pytest.raises(Conflict):
            set_limit(subject="tenant", amount=2, window="day")


def test_days_and_months_are_kept_and_those_of_limits_that_are_gone_are_not(world):
    with tenant_scope(world.tenant.pk, SYSTEM):
        row = set_limit(subject="tenant", amount=9, window="day", each=False)
    counter = f"{row.pk}:somebody"
    keep_uses({str(row.pk): (86_400, 3), counter: (86_400, 1), "01980000-0000-7000-8000-0000000000ff": (86_400, 5)})
    keep_uses({str(row.pk): (86_400, 4)})
    kept = kept_uses()
    assert (kept[str(row.pk)], kept[counter]) == ((86_400, 4), (86_400, 1))
    with tenant_scope(world.tenant.pk, SYSTEM):
        remove_limit(row)
    assert not LimitUse.objects.filter(counter__startswith=str(row.pk)).exists()
