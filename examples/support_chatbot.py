"""A chatbot that picks a support strategy for every turn.

    python examples/support_chatbot.py MODEL

The student reads the dialogue so far; the strategies were read once, at the start. What the strategy becomes in words
is the business of whichever language model writes the reply.
"""

from __future__ import annotations

import argparse
import sys

from rabtriever import Retriever
from rabtriever.index.records import sigmoid

STRATEGIES = {
    "Question": "ask for what is missing to understand the situation",
    "Restatement": "say again in other words what the person said",
    "Reflection of feelings": "name the feelings that the person shows",
    "Self-disclosure": "share a similar experience of one's own",
    "Affirmation and reassurance": "affirm the person's strengths and give hope",
    "Suggestions": "propose something that the person could do",
    "Information": "give facts or resources that help",
    "Others": "greet, thank or say goodbye",
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Pick a support strategy for each line of stdin.")
    parser.add_argument("model")
    student = Retriever.from_pretrained(parser.parse_args(arguments).model)
    names = list(STRATEGIES)
    documents = student.encode_document([f"{name}: {what}" for name, what in STRATEGIES.items()])
    dialogue: list[str] = []
    print("Tell me how you are. An empty line ends.")
    for line in sys.stdin:
        if not line.strip():
            break
        dialogue.append(f"seeker: {line.strip()}")
        scores = student.similarity(student.encode_query(["\n".join(dialogue)]), documents)[0]
        best = [names[place] for place in (-scores).argsort()[:3]]
        print(f"-> {best[0]} ({sigmoid(float(scores.max())):.0%}): {STRATEGIES[best[0]]}; else {', '.join(best[1:])}")
        dialogue.append(f"supporter: ({best[0]})")


if __name__ == "__main__":
    main(sys.argv[1:])
