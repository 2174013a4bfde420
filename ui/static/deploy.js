// A new function: the form, and what becomes of it until a replica is ready.

import { every, get, send } from './api.js';
import { h, outcome, setText } from './dom.js';
import { deploymentForm } from './deployment.js';
import { words } from './list.js';

export function deployView(overview) {
  const result = outcome();
  const progress = h('section', { class: 'panel', 'aria-labelledby': 'progress-heading', hidden: true });
  let following;

  const form = deploymentForm({ service: '', image: '' }, overview, {
    button: 'Deploy', result,
    async submit(deployment) {
      await send('POST', 'system/functions', deployment);
      result.show('Swarm has taken it.', 'good');
      follow(deployment.service);
    },
  });

  // follow shows the state until a replica is ready: twice in a row, as one that
  // crashes at once is there for a moment.
  function follow(name) {
    following?.end();
    const began = performance.now();
    const state = h('p', { class: 'state', role: 'status', 'data-tone': 'busy' }, 'Starting');
    const took = h('p', { class: 'hint' });
    progress.hidden = false;
    progress.replaceChildren(h('h2', { id: 'progress-heading' }, name), state, took,
      h('p', {}, h('a', { href: `#/function/${encodeURIComponent(name)}` }, `Open ${name}`)));
    let ready = 0;
    following = every(1000, async () => {
      let f;
      try {
        ({ functions: [f] } = await get(`system/overview?name=${encodeURIComponent(name)}`));
      } catch (error) {
        setText(state, error.message);
        return;
      }
      ready = f.state === 'ready' ? ready + 1 : 0;
      const seconds = Math.round((performance.now() - began) / 1000);
      if (ready >= 2) {
        state.dataset.tone = 'good';
        setText(state, 'Ready');
        setText(took, `Its first replica was ready after about ${Math.max(1, seconds - 1)} s.`);
        following.end();
        return;
      }
      state.dataset.tone = f.state === 'failing' ? 'bad' : 'busy';
      setText(state, ready ? 'Starting: its first replica has just come up' : words(f));
      setText(took, `${seconds} s. Swarm goes on trying.`);
    });
  }

  return {
    name: 'deploy', title: 'Deploy',
    elements: [h('h1', {}, 'Deploy a function'),
      overview.can.deploy && overview.can.write
        ? h('div', { class: 'columns' }, h('section', { class: 'panel', 'aria-label': 'Deployment' }, form.element),
          h('div', {}, progress, h('section', { class: 'panel', 'aria-labelledby': 'same-heading' }, h('h2', { id: 'same-heading' }, 'The same in other words'), form.same)))
        : h('p', {}, 'Functions cannot be deployed here.')],
    close() { following?.end(); },
  };
}
