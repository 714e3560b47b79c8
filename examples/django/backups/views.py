"""What the panel answers. People see and touch their own backups only."""

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

import harp

from .events import events
from .forms import BackupForm
from .models import Backup


@login_required
def index(request: HttpRequest) -> HttpResponse:
    """List the person's backups, and start another one."""
    form = BackupForm(request.POST or None)
    if form.is_valid():
        database, key = form.cleaned_data["database"], form.cleaned_data["key"]
        try:
            return redirect(Backup.objects.start(request.user, database, str(key)))
        except harp.HarpException as error:
            form.add_error(None, [str(error), error.remedy or ""])
    backups = Backup.objects.filter(owner=request.user)
    return render(request, "backups/index.html", {"form": form, "backups": backups})


@login_required
@require_safe
def detail(request: HttpRequest, job_id: str) -> HttpResponse:
    """Show what is known of a backup now."""
    backup = get_object_or_404(Backup, pk=job_id, owner=request.user)
    return render(request, "backups/detail.html", {"backup": backup, **backup.outcome()})


@login_required
@require_safe
def follow(request: HttpRequest, job_id: str) -> StreamingHttpResponse:
    """Stream a backup's progress; it takes a thread of the server for as long as it lasts."""
    backup = get_object_or_404(Backup, pk=job_id, owner=request.user)
    last = request.headers.get("Last-Event-ID", "")
    since = int(last) + 1 if last.isdecimal() else 0
    job = backup.job
    connection.close()  # of the database, which the follower would keep to his end
    return StreamingHttpResponse(
        events(job, since),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@login_required
@require_POST
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Cancel a backup."""
    backup = get_object_or_404(Backup, pk=job_id, owner=request.user)
    try:
        backup.job.cancel()
    except harp.HarpException as error:
        messages.error(request, f"{error} {error.remedy or ''}")
    return redirect(backup)
