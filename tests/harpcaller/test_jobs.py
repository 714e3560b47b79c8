"""Tests of ``harpcaller.jobs``: the table of states."""

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.jobs import IllegalTransitionError, JobEvent, JobState, is_legal, state_after

LEGAL = {
    (JobState.WAITING, JobEvent.START): JobState.RUNNING,
    (JobState.WAITING, JobEvent.CANCEL): JobState.ENDED,
    (JobState.RUNNING, JobEvent.FINISH): JobState.ENDED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.ENDED,
    (JobState.RUNNING, JobEvent.LOSE): JobState.ENDED,
}


class TransitionTests(SynchronousTestCase):
    """What can happen to a job."""

    def test_every_pair(self) -> None:
        """A legal event leads to its state, every other one raises."""
        for state, event in product(JobState, JobEvent):
            self.assertEqual(is_legal(state, event), (state, event) in LEGAL)
            if (state, event) in LEGAL:
                self.assertIs(state_after(state, event), LEGAL[state, event])
            else:
                with self.assertRaises(IllegalTransitionError):
                    state_after(state, event)

    def test_ended_is_final(self) -> None:
        """Nothing happens to a job that has ended."""
        self.assertFalse(any(is_legal(JobState.ENDED, event) for event in JobEvent))

    def test_error_names_both(self) -> None:
        """The mistake is told with the event and the state."""
        with self.assertRaisesRegex(IllegalTransitionError, "finish of a job that is waiting"):
            state_after(JobState.WAITING, JobEvent.FINISH)
