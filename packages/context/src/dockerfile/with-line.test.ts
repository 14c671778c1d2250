import { expect, it } from 'vitest';

import { readDockerfile } from './read-dockerfile.ts';
import { withLineAfterFrom } from './with-line.ts';

const edited = (text: string) => new TextDecoder().decode(withLineAfterFrom(new TextEncoder().encode(text), 'ARG X=1'));

it('goes behind every FROM, wherever that ends', () => {
  expect(edited('FROM a')).toBe('FROM a\nARG X=1');
  expect(edited('# escape=`\nARG V=1\nfrom a `\n# FROM c\n  AS b\nRUN x\nFROM b\nRUN y\n')).toBe(
    '# escape=`\nARG V=1\nfrom a `\n# FROM c\n  AS b\nARG X=1\nRUN x\nFROM b\nARG X=1\nRUN y\n',
  );
  expect(edited('FROM a\r\nRUN b\r\n')).toBe('FROM a\r\nARG X=1\nRUN b\r\n');
  expect(edited('FROM a\nRUN <<E\nFROM b\nE\n')).toBe('FROM a\nARG X=1\nRUN <<E\nFROM b\nE\n');
});

it('keeps every byte, also of a text that is not UTF-8', () => {
  const latin1 = Buffer.from('FROM a\nRUN printf "caf\xe9"\n', 'latin1');
  const bytes = withLineAfterFrom(latin1, 'ARG X=1');
  expect(Buffer.from(bytes).toString('latin1')).toBe('FROM a\nARG X=1\nRUN printf "caf\xe9"\n');
});

it('changes no stage', () => {
  const text = 'FROM a AS one\nRUN true\nFROM one\nCOPY --from=one /x /\n';
  const { stages } = readDockerfile(edited(text));
  expect(stages.map(({ name, base, baseStage }) => [name, base, baseStage])).toEqual([
    ['one', 'a', null],
    [null, 'one', 0],
  ]);
});
