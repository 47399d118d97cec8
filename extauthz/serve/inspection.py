"""What operators ask of one process that answers checks, whether it is a worker or the whole sidecar."""

from __future__ import annotations

from extauthz.process.clock import SystemClock
from extauthz.serve.messages import Answer, Done, EndRecording, Failed, FindDecisions, Inspection, StartRecording, TakeRecorded
from extauthz.serve.recording import Recording, forbidden
from extauthz.serve.worker import Worker


class Inspector:
    """Answers for one process; one recording at a time goes on in it."""

    def __init__(self, worker: Worker) -> None:
        """Begin without a recording."""
        self._worker = worker
        self._recording: Recording | None = None

    async def answer(self, request: Inspection) -> Answer:
        """Do what is asked for."""
        match request:
            case FindDecisions():
                recent = self._worker.decisions.recent
                return await recent.find(request.wanted, limit=request.limit, most_bytes=request.most_bytes)
            case StartRecording():
                return self._start(request)
        recording = self._recording
        if recording is None or recording.name != request.recording:
            return Failed("no recording of this name")
        match request:
            case TakeRecorded():
                return recording.take()
            case EndRecording():
                recording.abandon()
                self._recording = None
        return Done()

    def _start(self, request: StartRecording) -> Answer:
        worker = self._worker
        if cause := forbidden(worker.configuration):
            return Failed(cause)
        if self._recording is not None:
            # The parent knows of it, and has forgotten it.
            self._recording.abandon()
        self._recording = Recording(request, lambda: worker.configuration, self._detach, now=SystemClock().now)
        worker.recorders.replace(None, self._recording)
        return Done()

    def _detach(self, recording: Recording) -> None:
        self._worker.recorders.replace(recording, None)
