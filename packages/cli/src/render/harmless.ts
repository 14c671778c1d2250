import { Transform } from 'node:stream';

/** Longest sequence for colours that is passed on. */
const MOST_SEQUENCE = 64;

type State = 'text' | 'escape' | 'sequence' | 'string' | 'string-escape';

/**
 * Passes text on to a terminal without what could control it: of control sequences (ECMA-48) only colours and the like (SGR) are left, of control characters only line ends
 * and tabs. What programs wrote long ago must not set the title or the clipboard, ask the terminal for answers that it then types, or hide lines.
 */
export function harmless(): Transform {
  const decoder = new TextDecoder();
  let state: State = 'text';
  let sequence = '';
  const step = (character: string): string => {
    const code = character.codePointAt(0)!;
    if (state === 'text') {
      if (code === 0x1b) state = 'escape';
      else if (code === 0x9b) [state, sequence] = ['sequence', ''];
      else if (isStringStart(code)) state = 'string';
      else if (code >= 0x20 ? code < 0x7f || code > 0x9f : '\t\n\r'.includes(character)) return character;
      return '';
    }
    if (state === 'escape') {
      if (character === '[') [state, sequence] = ['sequence', ''];
      else if (']PX^_'.includes(character)) state = 'string';
      // What stands between ESC and the end of a short sequence.
      else if (code < 0x20 || code > 0x2f) state = code === 0x1b ? 'escape' : 'text';
      return '';
    }
    if (state === 'sequence') {
      if (code === 0x1b || code === 0x18 || code === 0x1a) state = code === 0x1b ? 'escape' : 'text';
      else if (code >= 0x40 && code <= 0x7e) {
        state = 'text';
        if (character === 'm' && /^[0-9;:]*$/.test(sequence)) return `\u001B[${sequence}m`;
      } else if (sequence.length < MOST_SEQUENCE) sequence += character;
      else sequence = '?';
      return '';
    }
    // A string ends with ST, which is two characters, or with BEL or CAN.
    if (state === 'string-escape') state = character === '\\' ? 'text' : code === 0x1b ? 'string-escape' : 'string';
    else if (code === 0x1b) state = 'string-escape';
    else if (code === 0x07 || code === 0x18 || code === 0x9c) state = 'text';
    return '';
  };
  const shown = (text: string) => Array.from(text, step).join('');
  return new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      done(null, shown(decoder.decode(chunk, { stream: true })));
    },
    flush(done) {
      done(null, shown(decoder.decode()));
    },
  });
}

/** DCS, SOS, OSC, PM and APC as one character. */
function isStringStart(code: number): boolean {
  return code === 0x90 || code === 0x98 || code === 0x9d || code === 0x9e || code === 0x9f;
}
