import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { defineConfig, type DefaultTheme } from 'vitepress';

/** The pages that build.ts wrote, as groups of the side bar. */
const SIDEBAR = join(import.meta.dirname, '../.site/sidebar.json');
const sidebar = existsSync(SIDEBAR)
  ? (JSON.parse(readFileSync(SIDEBAR, 'utf8')) as DefaultTheme.SidebarItem[])
  : [];

// VitePress loads its configuration by the default export.
export default defineConfig({
  title: 'decant',
  description: 'From a Dockerfile to a sandbox that runs before its disk has arrived',
  head: [['link', { rel: 'icon', href: '/favicon.svg', type: 'image/svg+xml' }]],
  srcDir: '.site',
  cleanUrls: true,
  // The links of generated pages that lead to sources stay as text; every other dead link fails the build.
  ignoreDeadLinks: [/^https?:\/\/localhost/],
  themeConfig: {
    nav: [
      { text: 'Getting started', link: '/getting-started' },
      { text: 'Guides', link: '/guides/' },
      { text: 'Formats', link: '/formats/' },
      { text: 'API', link: '/api/' },
      { text: 'Error codes', link: '/error-codes' },
    ],
    sidebar,
    search: { provider: 'local' },
    outline: [2, 3],
  },
});
