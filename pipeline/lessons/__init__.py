"""The course: 49 lessons of chapters 61-66, each with a guide and a check of what the learner made."""
