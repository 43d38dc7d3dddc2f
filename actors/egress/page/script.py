"""What runs in every document before anything of the page: it tells us things by one function.

- What asks a person (`alert`, `confirm`, `prompt`) does not come up at all, not even for a moment:
  it would be in the picture.
- The signals, which are lines in its console, are told even when it says too much to be listened
  to; what it says too much or too long is dropped where it arises. All of it would cost the
  appliance a tenth of a millisecond each.
- A page may close only windows that it opened; it is over when it closes ours.

A page could undo this, and would be told less of, or lose its own recording: no limit that protects
the appliance is here alone.
"""

from __future__ import annotations

import msgspec

from actors.egress.page.request import MAX_TEXT

BINDING = "__switchboard"
READY = "switchboard:ready"
END = "switchboard:end"

# In a second, in each frame.
MOST_LINES = 100
# In the life of a document.
MOST_DIALOGS = 1000


class Said(msgspec.Struct):
    """What the script tells: a dialog, a signal, `close`, or how many lines it dropped."""

    type: str
    message: str = ""
    count: int = 0


SCRIPT = f"""(() => {{
    const binding = window.{BINDING}, later = window.setTimeout.bind(window);
    const tell = (said) => binding(JSON.stringify(said));
    const short = (value) => String(value).slice(0, {2 * MAX_TEXT});

    let dialogs = {MOST_DIALOGS};
    const asks = (type, answer) => (message = '') => {{
        if (dialogs-- > 0) tell({{type, message: short(message)}});
        return answer;
    }};
    window.alert = asks('alert');
    window.confirm = asks('confirm', false);
    window.prompt = asks('prompt', null);
    if (window === window.top) window.close = () => tell({{type: 'close'}});

    let lines = 0, dropped = 0;
    const anew = () => {{
        if (dropped) tell({{type: 'left_out', count: dropped}});
        lines = dropped = 0;
    }};
    const signal = /^\\s*({READY}|{END})(\\s|$)/;
    for (const level of ['debug', 'log', 'info', 'warn', 'error', 'dir', 'trace']) {{
        const real = console[level].bind(console);
        console[level] = (...values) => {{
            if (typeof values[0] === 'string' && signal.test(values[0]))
                tell({{type: 'signal', message: short(values[0]).trim()}});
            if (lines++ === 0) later(anew, 1000);
            if (lines > {MOST_LINES}) dropped++;
            else real(...values.map(value => typeof value === 'string' ? short(value) : value));
        }};
    }}
}})()"""
