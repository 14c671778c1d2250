import { dockerfileInvalid } from './dockerfile-invalid.ts';
import { splitWords } from './words.ts';

export interface Instruction {
  /** Upper case. */
  readonly keyword: string;
  /** What follows the keyword, quotes and escapes still in it. */
  readonly words: readonly string[];
  /** Line of the keyword, from 1. */
  readonly line: number;
  /** Last line that belongs to it, here-documents included. */
  readonly lastLine: number;
  /** Whether the bodies of here-documents follow it; they belong to it and are not read. */
  readonly heredoc: boolean;
}

interface Heredoc {
  readonly name: string;
  /** `<<-`: tabs in front of its end do not count. */
  readonly tabs: boolean;
}

/** `<<EOF`, `<<-EOF`, `3<<'EOF'`, but not a here-string (`<<<`). */
const HEREDOC = /^\d*<<(-?)([^<]+)$/;
const HEREDOC_INSTRUCTIONS = new Set(['RUN', 'COPY', 'ADD']);

/**
 * The instructions of a Dockerfile: continued lines joined, comments and empty lines among them left out, the bodies
 * of here-documents passed over. A word like `<<EOF` whose end never comes opens none: an engine without them leaves
 * it to the shell, and one with them says so itself. The time taken is linear in the number of lines.
 * @throws DOCKERFILE_INVALID when only some of the here-documents of an instruction have an end.
 */
export function* readInstructions(lines: readonly string[], escape: string, file: string): Generator<Instruction> {
  let last: { exact: Map<string, number>; untabbed: Map<string, number> } | undefined;
  /** Index of the last line that ends such a here-document, so that one without end is known without a search. */
  const lastEnd = ({ name, tabs }: Heredoc) => {
    last ??= {
      exact: new Map(lines.map((line, index) => [line, index])),
      untabbed: new Map(lines.map((line, index) => [untabbed(line), index])),
    };
    return (tabs ? last.untabbed : last.exact).get(name) ?? -1;
  };
  for (let at = 0; at < lines.length;) {
    const start = at;
    let text = '';
    for (let isContinued = true; isContinued && at < lines.length; at++) {
      const line = lines[at]!;
      if (/^\s*(?:#|$)/.test(line)) {
        if (at === start) isContinued = false;
        continue;
      }
      const trimmed = line.trimEnd();
      isContinued = trimmed.endsWith(escape);
      text += isContinued ? trimmed.slice(0, -1) : line;
    }
    const [first, ...words] = splitWords(text, escape);
    if (first === undefined) continue;
    const keyword = first.toUpperCase();
    const opener = keyword === 'ONBUILD' ? words[0]?.toUpperCase() : keyword;
    const heredocs = HEREDOC_INSTRUCTIONS.has(opener ?? '') ? words.flatMap((word) => heredocOf(word)) : [];
    const heredoc = heredocs.length > 0 && lastEnd(heredocs[0]!) >= at;
    if (heredoc) {
      for (const end of heredocs) {
        if (lastEnd(end) < at) throw dockerfileInvalid(file, start + 1, `the here-document ${end.name} has no end`);
        while ((end.tabs ? untabbed(lines[at]!) : lines[at]!) !== end.name) at += 1;
        at += 1;
      }
    }
    yield { keyword, words, line: start + 1, lastLine: at, heredoc };
  }
}

function heredocOf(word: string): Heredoc[] {
  const match = HEREDOC.exec(word);
  const name = match?.[2]!.replace(/\\(.)|["']/gs, '$1') ?? '';
  return match === null || name === '' ? [] : [{ name, tabs: match[1] === '-' }];
}

function untabbed(line: string): string {
  return line.replace(/^\t+/, '');
}
