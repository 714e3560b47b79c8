"""What the panel itself keeps: who asked for which job."""

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.urls import reverse

import harp

from .dispatcher import dispatcher

HOST = "web01.example.net"


class BackupManager(models.Manager):
    """Starts backups."""

    def start(self, owner: AbstractUser, database: str, key: str) -> "Backup":
        """Submit the call and record its job; the same key twice makes one job and one record."""
        host = dispatcher().host(
            HOST,
            queue={"backup": HOST},  # one after the other
            on_behalf_of=owner.get_username(),
            # Who goes back and chooses another database wants another backup.
            idempotency_key=f"{key} {database}",
        )
        job = host.back_up(database)
        backup, _ = self.get_or_create(
            job_id=job.id(), defaults={"owner": owner, "database": database}
        )
        return backup


class Backup(models.Model):
    """A backup. All else about it is asked from the dispatcher, by the job's id."""

    job_id = models.CharField(max_length=36, primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    database = models.CharField(max_length=64)
    submitted = models.DateTimeField(auto_now_add=True)

    objects = BackupManager()

    class Meta:
        """The newest first."""

        ordering = ["-submitted"]

    def __str__(self) -> str:
        return f"{self.database}, {self.submitted:%Y-%m-%d %H:%M:%S}"

    def get_absolute_url(self) -> str:
        """Return the address of its page."""
        return reverse("detail", args=[self.job_id])

    @property
    def job(self) -> harp.RemoteCall:
        """The job, asked for on behalf of its owner."""
        return dispatcher().job(self.job_id, on_behalf_of=self.owner.get_username())

    def outcome(self) -> dict[str, object]:
        """Return its state now, with the result or the error."""
        try:
            result = self.job.result()
            if result is harp.CALL_NOT_FINISHED:
                return {"state": self.job.detail()["state"]}
        except harp.HarpException as error:
            return {"state": "unknown", "error": error}
        if result is harp.CALL_CANCELLED:
            return {"state": "cancelled"}
        if isinstance(result, harp.HarpException):
            return {"state": "failed", "error": result}
        return {"state": "done", "result": result}
