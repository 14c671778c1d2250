/** The first block of a Markdown text that is fenced as ```js, or undefined. */
export function firstExample(markdown: string): string | undefined {
  return /^```js\n([\s\S]*?)^```$/m.exec(markdown)?.[1];
}
