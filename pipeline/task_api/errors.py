"""What a task call can be refused for. :meth:`TaskStore.call` turns each into ``{"error": code, "message": ...}``."""

from pipeline.core.errors import InvalidInputError


class TaskApiError(InvalidInputError):
    """Base of all refusals of the Task API."""

    code = "task_api"


class InvalidArgumentsError(TaskApiError):
    """The call does not fit the tool's schema."""

    code = "invalid_arguments"


class TaskNotFoundError(TaskApiError):
    """No task has that id."""

    code = "not_found"


class AlreadyCompletedError(TaskApiError):
    """The task was completed before."""

    code = "already_completed"


class InvalidPriorityError(TaskApiError):
    """The priority is none of low, medium, high."""

    code = "invalid_priority"


class EmptyTitleError(TaskApiError):
    """The title has no visible character."""

    code = "empty_title"


class NothingToUpdateError(TaskApiError):
    """An update names no field to change."""

    code = "nothing_to_update"


class DueDateError(TaskApiError):
    """Base of what can be wrong with a due date."""

    code = "due_date"


class InvalidDueDateError(DueDateError):
    """The words are no date, or a date that does not exist."""

    code = "invalid_due_date"


class PastDueDateError(DueDateError):
    """The date lies before today."""

    code = "past_due_date"
