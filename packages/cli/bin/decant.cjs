#!/usr/bin/env node
// Plain old JavaScript on purpose: it has to run on any Node far enough to say which one is needed.
'use strict';

var parts = process.versions.node.split('.');
var major = Number(parts[0]);
var minor = Number(parts[1]);
var supported = (major === 22 && minor >= 19) || (major === 24 && minor >= 11) || major >= 26;

if (!supported) {
  process.stderr.write(
    'decant needs Node 22.19 or later, 24.11 or later, or 26 and later; this is Node ' + process.versions.node + '.\n',
  );
  process.exitCode = 1;
} else {
  // Node 22 calls node:sqlite experimental whenever it is loaded, which is no news to who runs a command.
  var emitWarning = process.emitWarning;
  process.emitWarning = function (warning) {
    if (!String(warning).startsWith('SQLite is an experimental feature')) emitWarning.apply(process, arguments);
  };
  import('../dist/main.js').catch(function (error) {
    process.stderr.write('decant could not start: ' + (error && error.message ? error.message : error) + '\n');
    process.exitCode = 1;
  });
}
