"""An answer counts for the question it names, and for no other."""

import threading

from pipeline.agent.consent import ConsentDesk, Question


def ask_and(desk_answers: list[tuple[Question | None, bool]]) -> tuple[bool, list[bool]]:
    """Ask once, and give these answers while it is open; None names the question that was asked."""
    taken: list[bool] = []

    def respond(question: Question) -> None:
        taken.extend(desk.answer((named or question).id, agree) for named, agree in desk_answers)

    desk = ConsentDesk(respond, 0.05)
    return desk.ask("Delete it?"), taken


def test_the_answer_that_names_the_question_is_taken_once() -> None:
    assert ask_and([(None, True), (None, False)]) == (True, [True, False])
    assert ask_and([(None, False)]) == (False, [True])


def test_silence_and_an_answer_to_another_question_are_a_no() -> None:
    assert ask_and([]) == (False, [])
    assert ask_and([(Question("An older one?"), True)]) == (False, [False])


def test_a_yes_that_comes_too_late_is_refused_and_does_not_wait_for_the_next_question() -> None:
    asked: list[Question] = []
    desk = ConsentDesk(asked.append, 0.05)
    assert not desk.ask("Delete task 1?")
    assert desk.open_question is None
    assert not desk.answer(asked[0].id, agree=True)
    assert not desk.ask("Delete task 2?")
    assert asked[0].id != asked[1].id


def test_closing_says_no_to_the_open_question_and_to_later_ones() -> None:
    is_asked = threading.Event()
    desk = ConsentDesk(lambda question: is_asked.set(), 60)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(desk.ask("Delete it?")))
    thread.start()
    assert is_asked.wait(10)
    desk.close()
    thread.join(10)
    assert answers == [False]
    assert not desk.ask("And now?")
