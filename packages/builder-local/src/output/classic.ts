import type { BuildEvent } from '../driver.ts';
import { isEngineGone, LastLines, log, plain, progress, type FailureReport, type OutputReader } from './reader.ts';

/*
 * The classic builder writes, without marking what comes from a step:
 *   Step 2/5 : RUN command
 *    ---> Using cache | ---> Running in ID | ---> ID
 *   output of the step
 *   Removing intermediate container ID      (glued to output that has no line end)
 *   Successfully built ID
 * and its error on stderr.
 */
const STEP = /^Step (\d+)\/(\d+) : (.*)$/;
const NOISE =
  /^( ---> |Removing intermediate container |Removed intermediate container |Successfully (built|tagged) |Sending build context |DEPRECATED: The legacy builder|\s+BuildKit is currently disabled|\s+environment-variable\.|\s+Install the buildx component|\s+https:\/\/docs\.docker\.com\/go\/buildx)/;
const EXIT_CODE = /returned a non-zero code: (\d+)\s*$/;

/** Reads what the classic builder of docker writes. */
export class ClassicReader implements OutputReader {
  readonly #output = new LastLines();
  readonly #errors = new LastLines();
  #step: { label: string; command: string } | undefined;

  line(raw: string, stream: 'stdout' | 'stderr'): readonly BuildEvent[] {
    const line = plain(raw);
    if (stream === 'stderr') {
      if (line.trim() === '' || NOISE.test(line)) return [];
      this.#errors.add(line);
      return [log(line, stream)];
    }
    const step = STEP.exec(line);
    if (step !== null) {
      const [, number, total, command = ''] = step;
      this.#step = { label: `${number}/${total}`, command };
      this.#output.clear();
      return [log(`[${this.#step.label}] ${command}`, stream), progress(Number(number), Number(total))];
    }
    if (line === ' ---> Using cache' && this.#step !== undefined) {
      return [log(`CACHED [${this.#step.label}] ${this.#step.command}`, stream)];
    }
    const text = line.replace(/Remov(ing|ed) intermediate container [0-9a-f]{12}$/, '');
    if (NOISE.test(line) || (text === '' && line !== '')) return [];
    this.#output.add(text);
    return [log(text, stream)];
  }

  failure(): FailureReport {
    const lastLines = this.#output.all;
    const reason = this.#errors.all.at(-1) ?? lastLines.at(-1) ?? '';
    const all = this.#errors.all.join('\n');
    if (isEngineGone(all)) return { kind: 'engine', reason, lastLines };
    if (this.#step === undefined) {
      const invalid = /dockerfile parse error|unknown instruction|Dockerfile.*cannot be empty/i.test(all);
      return {
        kind: invalid ? 'invalid' : 'other',
        reason: reason.replace(/^Error response from daemon: /, ''),
        lastLines,
      };
    }
    const { label, command } = this.#step;
    const from = /^FROM\s+(?:--\S+\s+)*(\S+)/i.exec(command);
    if (from !== null) return { kind: 'base', image: from[1]!, step: label, reason, lastLines };
    const exit = EXIT_CODE.exec(all);
    return {
      kind: 'step',
      step: label,
      command,
      exitCode: exit === null ? undefined : Number(exit[1]),
      reason: reason.replace(/^COPY failed: /, ''),
      lastLines,
    };
  }
}
