import type { BuildEvent } from '../driver.ts';
import { isEngineGone, LastLines, log, plain, progress, type FailureReport, type OutputReader } from './reader.ts';

/*
 * docker build --progress plain writes to stderr, per vertex N:
 *   #N [stage 2/4] RUN command     its name, when it is first shown
 *   #N sha256:…                    its digest (20.10)
 *   #N 0.084 text                  a line of output, with seconds since its start
 *   #N CACHED | DONE 0.1s | ERROR: reason
 * and after a failure a summary between lines of dashes, then the error of the whole. A last line of output
 * without a line end is followed by the next record on the same line.
 */
const RECORD = /^#(\d+) (.*)$/;
const STEP = /^\[(?:(.+) )?(\d+)\/(\d+)\] (.+)$/;
const OUTPUT = /^\d+\.\d+ (.*)$/;
const METADATA = /^\[internal\] load metadata for (.+)$/;
const FRONT_END = /^resolve image config for (?:docker-image:\/\/)?(.+)$/;
const EXIT_CODE = /exit code: (\d+)\s*$/;

interface Vertex {
  readonly name: string;
  readonly output: LastLines;
}

/** Reads what BuildKit writes with `--progress plain`. */
export class BuildkitReader implements OutputReader {
  readonly #vertices = new Map<string, Vertex>();
  readonly #started = new Set<string>();
  readonly #closing = new LastLines();
  #failed: { vertex: Vertex | undefined; reason: string } | undefined;

  line(raw: string, stream: 'stdout' | 'stderr'): readonly BuildEvent[] {
    const line = plain(raw);
    const record = RECORD.exec(line);
    if (record === null) {
      if (line.trim() !== '' && !/^-+$/.test(line) && !line.startsWith(' > ')) this.#closing.add(line);
      return [];
    }
    return this.#record(record[1]!, record[2]!, stream);
  }

  #record(id: string, text: string, stream: 'stdout' | 'stderr'): readonly BuildEvent[] {
    const vertex = this.#vertices.get(id);
    if (vertex === undefined) {
      this.#vertices.set(id, { name: text, output: new LastLines() });
      const step = STEP.exec(text);
      if (step === null || this.#started.has(text)) return [];
      this.#started.add(text);
      return [log(text, stream), progress(Number(step[2]), Number(step[3]))];
    }
    const output = OUTPUT.exec(text);
    if (output !== null) {
      const glued = new RegExp(`^(.*)#${id} (DONE \\d[\\d.]*s|CACHED|ERROR: .*)$`).exec(output[1]!);
      const line = glued === null ? output[1]! : glued[1]!;
      vertex.output.add(line);
      return [log(line, stream), ...(glued === null ? [] : this.#record(id, glued[2]!, stream))];
    }
    if (text.startsWith('ERROR: ')) {
      const reason = text.slice('ERROR: '.length);
      // Steps that were running beside the failed one report that they were cancelled.
      if (this.#failed === undefined || /^(context canceled|cancell?ed)/i.test(this.#failed.reason)) {
        this.#failed = { vertex, reason };
      }
    } else if (text === 'CACHED' && STEP.test(vertex.name)) {
      return [log(`CACHED ${vertex.name}`, stream)];
    }
    return [];
  }

  failure(): FailureReport {
    const closing = this.#closing.all.at(-1) ?? '';
    const { vertex, reason = closing } = this.#failed ?? {};
    const lastLines = vertex === undefined ? this.#closing.all : vertex.output.all;
    if (isEngineGone(this.#closing.all.join('\n'))) return { kind: 'engine', reason: closing, lastLines };
    const base = METADATA.exec(vertex?.name ?? '');
    if (base !== null) return { kind: 'base', image: base[1]!, reason, lastLines };
    const frontEnd = FRONT_END.exec(vertex?.name ?? '');
    if (frontEnd !== null) return { kind: 'front-end', image: frontEnd[1]!, reason, lastLines };
    const step = STEP.exec(vertex?.name ?? '');
    if (step !== null) {
      const [, stage, number, total, command = ''] = step;
      const label = `${stage === undefined ? '' : `${stage} `}${number}/${total}`;
      if (command.startsWith('FROM ')) return { kind: 'base', image: command.slice(5), step: label, reason, lastLines };
      const exit = EXIT_CODE.exec(reason);
      return {
        kind: 'step',
        step: label,
        command,
        exitCode: exit === null ? undefined : Number(exit[1]),
        reason,
        lastLines,
      };
    }
    const text = this.#closing.all.join('\n');
    if (/dockerfile parse error|unknown instruction|Dockerfile cannot be empty/i.test(text)) {
      return { kind: 'invalid', reason: closing.replace(/^.*?(dockerfile parse error)/i, '$1'), lastLines };
    }
    return { kind: 'other', reason, lastLines };
  }
}
