"""What keys with a budget spend: reserved before a call, settled after it, by all processes together."""

from datetime import date
from decimal import Decimal

from django.db.models import F
from django.utils import timezone

from autoforge.errors import AppError
from autoforge.models import KeySpending


class BudgetSpent(AppError):
    """The key's money for this month is spent: waiting brings it back only with the next one."""

    status, code = 402, "budget_spent"


def reserve(key_id: int, budget_usd: Decimal, amount: Decimal) -> date:
    """Take `amount` out of what is left of this month's budget; the month. Raises BudgetSpent."""
    month = timezone.now().date().replace(day=1)
    row, _ = KeySpending.objects.get_or_create(key_id=key_id, month=month)
    fitting = KeySpending.objects.filter(pk=row.pk, spent_usd__lte=budget_usd - amount)
    if not fitting.update(spent_usd=F("spent_usd") + amount):
        raise BudgetSpent(
            f"This key may spend {budget_usd:f} US dollars a month on models, and {row.spent_usd:.6f} are"
            f" spent: this call can cost {amount:.6f}. A lower max_tokens makes it cheaper."
        )
    return month


def settle(key_id: int, month: date, change: Decimal) -> None:
    """Put what a call cost in place of what was reserved for it."""
    KeySpending.objects.filter(key_id=key_id, month=month).update(spent_usd=F("spent_usd") + change)
