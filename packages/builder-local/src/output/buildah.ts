import type { BuildEvent } from '../driver.ts';
import { isEngineGone, LastLines, log, plain, progress, type FailureReport, type OutputReader } from './reader.ts';

/*
 * buildah bud writes, without marking what comes from a step:
 *   [1/2] STEP 2/3: RUN command       (the first bracket only with several stages)
 *   --> Using cache ID | --> ID       (the latter, and COMMIT, glued to output that has no line end)
 *   COMMIT name, Successfully tagged name, ID
 * and on stderr the output of steps, progress of pulls and `Error: building at STEP "…": reason`.
 */
const STEP = /^(?:\[(\d+\/\d+)\] )?STEP (\d+)\/(\d+): (.*)$/;
const NOISE =
  /^(--> [0-9a-f]{11}$|COMMIT( |$)|Successfully tagged |[0-9a-f]{64}$|Getting image source signatures|Copying (blob|config) |Writing manifest to image destination|Storing signatures|subprocess exited with status \d+$|time="[^"]*" level=(warning|debug|info) )/;

/** Reads what `buildah bud` writes. */
export class BuildahReader implements OutputReader {
  readonly #output = new LastLines();
  #error = '';
  #step: { label: string; command: string } | undefined;

  line(raw: string, stream: 'stdout' | 'stderr'): readonly BuildEvent[] {
    const line = plain(raw);
    if (stream === 'stderr' && /^(Error: |error )/.test(line)) {
      this.#error = line.replace(/^(Error: |error )/, '');
      return [];
    }
    const step = stream === 'stdout' ? STEP.exec(line) : null;
    if (step !== null) {
      const [, stage, number, total, command = ''] = step;
      this.#step = { label: stage === undefined ? `${number}/${total}` : `${stage} ${number}/${total}`, command };
      this.#output.clear();
      return [log(`[${this.#step.label}] ${command}`, stream), progress(Number(number), Number(total))];
    }
    if (line.startsWith('--> Using cache ') && this.#step !== undefined) {
      return [log(`CACHED [${this.#step.label}] ${this.#step.command}`, stream)];
    }
    if (NOISE.test(line)) return [];
    const text = stream === 'stdout' ? line.replace(/--> [0-9a-f]{11}$|(?<=\S)COMMIT( localhost\/\S+)?$/, '') : line;
    this.#output.add(text);
    return [log(text, stream)];
  }

  failure(): FailureReport {
    const lastLines = this.#output.all;
    const text = this.#error === '' ? (lastLines.at(-1) ?? '') : this.#error;
    if (/Unknown instruction|dockerfile parse error|no FROM statement|syntax error/i.test(text)) {
      return { kind: 'invalid', reason: text, lastLines };
    }
    if (isEngineGone(text)) return { kind: 'engine', reason: text, lastLines };
    if (this.#step === undefined) return { kind: 'other', reason: text, lastLines };
    const { label, command } = this.#step;
    const from = /^FROM\s+(?:--\S+\s+)*(\S+)/i.exec(command);
    if (from !== null) return { kind: 'base', image: from[1]!, step: label, reason: text, lastLines };
    // The quoted step may itself hold quotes and colons, so its known text is cut off.
    const prefix = `building at STEP "${command}": `;
    const reason = text.startsWith(prefix) ? text.slice(prefix.length) : text;
    const exit = /exit status (\d+)\s*$/.exec(reason);
    return {
      kind: 'step',
      step: label,
      command,
      exitCode: exit === null ? undefined : Number(exit[1]),
      reason,
      lastLines,
    };
  }
}
