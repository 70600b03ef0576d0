"""The official features of spec 1.4 and 2.1-2.5 by slow, literal loops, as an independent reference.

Written from the specification alone: text is walked character by character, spans are searched
as joined strings, windows are compared one by one.
"""

import unicodedata

CJK = "4E00-9FFF 3400-4DBF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B820-2CEAF F900-FAFF 2F800-2FA1F"
RANGES = [tuple(int(end, 16) for end in item.split("-")) for item in CJK.split()]


def is_space(char):
    return char in " \t\n\r" or unicodedata.category(char) == "Zs"


def is_punctuation(char):
    code = ord(char)
    ascii_symbol = code in [*range(33, 48), *range(58, 65), *range(91, 97), *range(123, 127)]
    return ascii_symbol or unicodedata.category(char).startswith("P")


def is_control(char):
    return char not in "\t\n\r" and unicodedata.category(char).startswith("C")


def split(text):
    out = ""
    for char in text:
        cjk = any(low <= ord(char) <= high for low, high in RANGES)
        alone = cjk or is_punctuation(char) or is_space(char) or is_control(char)
        out += f" {char} " if alone else char
    return out.split()


def tokenize(text, vocabulary):
    pieces = []
    for word in split(text):
        found, rest, prefix = [], word, ""
        while rest and len(word) <= 200:
            cuts = (rest[:n] for n in range(len(rest), 0, -1) if prefix + rest[:n] in vocabulary)
            cut = next(cuts, None)
            if cut is None:
                break
            found.append(prefix + cut)
            rest, prefix = rest[len(cut) :], "##"
        pieces += ["[UNK]"] if rest else found
    return pieces


def read_target(context):
    words = split(context)
    char_to_word, k, collected = [], 0, ""
    for char in context:
        if is_space(char):
            char_to_word.append(k - 1)
            continue
        char_to_word.append(k)
        collected += char
        if collected == words[k]:
            k, collected = k + 1, ""
    return words, char_to_word


def read_source(context):
    words, char_to_word, inside = [], [], False
    for char in context:
        if char in " \t\r\n\u202f":
            inside = False
        else:
            if inside:
                words[-1] += char
            else:
                words.append(char)
            inside = True
        char_to_word.append(len(words) - 1)
    return words, char_to_word


def label(words, char_to_word, context, answer, vocabulary, source):
    """(pieces, start, end), the span None for a source that has none, "drop" if it mismatches."""
    pieces, first_of_word = [], []
    for word in words:
        first_of_word.append(len(pieces))
        pieces += tokenize(word, vocabulary)
    place = context.find(answer)
    start = end = -1
    if place >= 0:
        start, end = char_to_word[place], char_to_word[place + len(answer) - 1]
        if "".join(answer.split()) not in "".join(words[start : end + 1]):
            return pieces, "drop"
    elif source:
        return pieces, None
    tok_start = first_of_word[start]
    tok_end = first_of_word[end + 1] - 1 if end < len(words) - 1 else len(pieces) - 1
    wanted = " ".join(tokenize(answer if place >= 0 else "", vocabulary))
    for new_start in range(tok_start, tok_end + 1):
        for new_end in range(tok_end, new_start - 1, -1):
            if " ".join(pieces[new_start : new_end + 1]) == wanted:
                return pieces, (new_start, new_end)
    return pieces, (tok_start, tok_end)


def windows(question, pieces, span, vocabulary, length, stride, query):
    """[(tokens, segments, span mask, start, end, max-context flags)] of one side."""
    asked = tokenize(question, vocabulary)[:query]
    room = length - len(asked) - 3
    cuts, start = [], 0
    while start < len(pieces):
        size = min(len(pieces) - start, room)
        cuts.append((start, size))
        if start + size == len(pieces):
            break
        start += min(size, stride)
    out = []
    for start, size in cuts:
        tokens = ["[CLS]", *asked, "[SEP]", *pieces[start : start + size], "[SEP]"]
        first = len(asked) + 2
        segments = [0] * first + [1] * (size + 1)
        mask = [1] + [0] * (first - 1) + [1] * size + [0]
        gold = (0, 0)
        if span is not None and span[0] >= start and span[1] <= start + size - 1:
            gold = tuple(place - start + first for place in span)
        flags = [best(cuts, place) == (start, size) for place in range(start, start + size)]
        out.append((tokens, segments, mask, *gold, flags))
    return out


def best(cuts, place):
    """The first window with the highest max-context score."""
    found, highest = None, None
    for start, size in cuts:
        end = start + size - 1
        if start <= place <= end:
            score = min(place - start, end - place) + 0.01 * size
            if highest is None or score > highest:
                found, highest = (start, size), score
    return found


def example_windows(question, context, answer, vocabulary, source=False, **sizes):
    """All windows of one side of an example, "drop" if the official code drops it."""
    words, char_to_word = (read_source if source else read_target)(context)
    pieces, span = label(words, char_to_word, context, answer, vocabulary, source)
    return "drop" if span == "drop" else windows(question, pieces, span, vocabulary, **sizes)
