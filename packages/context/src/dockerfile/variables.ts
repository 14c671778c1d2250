/** Values of ARG and ENV by name; undefined for an ARG without a value. */
export type Variables = Pick<ReadonlyMap<string, string | undefined>, 'get'>;

/** A `$` expression that the Dockerfile language does not have; the message says which. */
export class VariableFault extends Error {}

/** `$NAME` and `${NAME}` are nested in defaults at most this deep. */
const DEEPEST = 16;

/** Longest result, in UTF-16 code units: values that name each other twice would otherwise double line by line. */
const LONGEST = 1024 * 1024;

/**
 * A word with its quotes and escapes taken off and `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`,
 * `${NAME:+other}`, `${NAME+other}`, `${NAME:?message}` and `${NAME?message}` replaced; an unset name gives ''.
 * (Dockerfile reference, "Environment replacement".)
 * @throws VariableFault, also when the result is over 1 MiB.
 */
export function expandWord(word: string, variables: Variables, escape = '\\'): string {
  return expand({ word, at: 0, variables, escape }, '', 0);
}

interface Reader {
  readonly word: string;
  at: number;
  readonly variables: Variables;
  readonly escape: string;
}

/** Expands up to `end`, a single character, or to the end of the word. */
function expand(reader: Reader, end: string, depth: number): string {
  if (depth > DEEPEST) throw new VariableFault('its variables are nested too deep');
  const { word, escape } = reader;
  let result = '';
  let quoted = false;
  while (reader.at < word.length) {
    const character = word[reader.at]!;
    if (character === end && !quoted) return result;
    reader.at += 1;
    if (character === escape && reader.at < word.length) {
      const next = word[reader.at]!;
      reader.at += 1;
      result += quoted && next !== '"' && next !== '$' && next !== escape ? character + next : next;
    } else if (character === "'" && !quoted) {
      const close = word.indexOf("'", reader.at);
      if (close < 0) throw new VariableFault("it has a ' without its pair");
      result += word.slice(reader.at, close);
      reader.at = close + 1;
    } else if (character === '"') {
      quoted = !quoted;
    } else if (character === '$') {
      result += variable(reader, depth);
    } else {
      result += character;
    }
    if (result.length > LONGEST) throw new VariableFault('its value is over 1 MiB');
  }
  if (quoted) throw new VariableFault('it has a " without its pair');
  if (end !== '') throw new VariableFault('it has a ${ without its }');
  return result;
}

function variable(reader: Reader, depth: number): string {
  const { word, variables } = reader;
  const braced = word[reader.at] === '{';
  const start = braced ? reader.at + 1 : reader.at;
  const name = /^(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?!$-])/.exec(word.slice(start))?.[0];
  if (name === undefined) {
    if (braced) throw new VariableFault('it has a ${ without a name');
    return '$';
  }
  reader.at = start + name.length;
  const value = variables.get(name);
  if (!braced) return value ?? '';
  const operator = /^(?::?[-+?])?/.exec(word.slice(reader.at))![0];
  reader.at += operator.length;
  const other = operator === '' ? '' : expand(reader, '}', depth + 1);
  if (word[reader.at] !== '}') throw new VariableFault('it has a ${ } with something that cannot be evaluated');
  reader.at += 1;
  const isSet = value !== undefined && (value !== '' || !operator.startsWith(':'));
  switch (operator.at(-1)) {
    case '-':
      return isSet ? value : other;
    case '+':
      return isSet ? other : '';
    case '?':
      if (!isSet)
        throw new VariableFault(`the variable ${name} is required: ${other === '' ? 'it is not set' : other}`);
      return value;
    default:
      return value ?? '';
  }
}
