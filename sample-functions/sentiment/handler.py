"""Says whether a text sounds glad or sad: one JSON object.

The imports stand for what makes real functions in Python slow to start. With a
fork server they are done before a request comes, once.
"""

import json
import re
import sys

POSITIVE = frozenset(
    """amazing awesome beautiful best brilliant delight delightful enjoy
    excellent fantastic fine glad good great happy helpful kind like love
    lovely nice perfect pleasant pleased superb thanks wonderful""".split()
)
NEGATIVE = frozenset(
    """angry annoying awful bad boring broken cruel disappointed disappointing
    dreadful fail failed hate horrible nasty poor sad slow sorry stupid
    terrible ugly unhappy useless worst wrong""".split()
)
NEGATION = frozenset("not never no isn't wasn't don't doesn't didn't can't".split())


def sentiment(text):
    """The polarity of text, from -1 (sad) to 1 (glad), and its word count."""
    words = re.findall(r"[a-z']+", text.lower().replace("\u2019", "'"))
    score = hits = 0
    for i, word in enumerate(words):
        value = (word in POSITIVE) - (word in NEGATIVE)
        if not value:
            continue
        # "not good" is not good, and neither is "not very good".
        if NEGATION.intersection(words[max(0, i - 2) : i]):
            value = -value
        score += value
        hits += 1
    return {"polarity": round(score / hits, 2) if hits else 0.0, "words": len(words)}


if __name__ == "__main__":
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace")
    json.dump(sentiment(text), sys.stdout)
    print()
