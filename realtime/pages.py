"""A page that follows one run: small enough to read, as an example of the browser's client."""

from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from evaluations.models import Run
from evaluations.schemas import columns_of


@require_safe
@login_required
def live_run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """A run of a project that the user is a member of; for anybody else it does not exist."""
    is_visible = Q() if _is_superuser(request) else Q(project__memberships__user=request.user.pk)
    run = get_object_or_404(Run.objects.select_related("project", "dataset"), is_visible, pk=run_id)
    return render(request, "realtime/run.html", {"run": run, "columns": columns_of(run)})


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))
