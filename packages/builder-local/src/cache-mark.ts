import type { OutputReader } from './output/reader.ts';

/** Name of the build argument that makes a stage another one to the classic builder's cache. */
export const CACHE_MARK = 'DECANT_CACHE_MARK';

const STEP = /^Step (\d+)\/(\d+) : (.*)$/;

/**
 * Reads the classic builder's output as if the steps that declare the mark, `marks` of them, were not there: the
 * others are counted without them.
 */
export function withoutCacheMark(reader: OutputReader, marks: number): OutputReader {
  let hidden = 0;
  return {
    line(line, stream) {
      const step = stream === 'stdout' ? STEP.exec(line) : null;
      if (step === null) return reader.line(line, stream);
      const [, number, total, command = ''] = step;
      if (command.startsWith(`ARG ${CACHE_MARK}=`)) {
        hidden += 1;
        return [];
      }
      return reader.line(`Step ${Number(number) - hidden}/${Number(total) - marks} : ${command}`, stream);
    },
    failure: () => reader.failure(),
  };
}
