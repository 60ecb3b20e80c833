"""The oracle: transformers 4.46.3 in a process of its own, asked what it does.

`make oracle` builds its environment. A test asks by the fixture `oracle`::

    [answer] = oracle.ask("config.to_dict", [{"attributes": {"hidden_size": 8}}])
    assert answer.value == ours

Questions are the public functions of `oracle/questions/<topic>.py`, asked as `<topic>.<name>`; each
takes one case and returns one answer. To add one is to write such a function: it runs in the
oracle's process, so it imports transformers and none of windlass. What both sides need (the classes
of a model, say) is a function of this package that takes the base classes as arguments.
"""
