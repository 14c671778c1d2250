import { expect, it } from 'vitest';

import { firstExample } from './readme-example.ts';

it('finds the first js block and no other', () => {
  const text = "# x\n\n```sh\nls\n```\n\n```js\nconsole.log('a');\n```\n\n```js\nb();\n```\n";
  expect(firstExample(text)).toBe("console.log('a');\n");
  expect(firstExample('```json\n{}\n```\n')).toBeUndefined();
  expect(firstExample('text ```js inline``` text')).toBeUndefined();
});
