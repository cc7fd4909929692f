"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const picture = JSON.parse(byId("data").textContent);
  const FOLD = 12, MORE = 1000, BOX_GAP = 10, GROUP_GAP = 34, TOP = 14, LEG = 22, HEAD = 24, PAD = 9;
  const AHEAD = 500, LISTED = 40, SVG = "http://www.w3.org/2000/svg";
  const hubs = new Map(picture.hubs.map((one) => [one.id, one]));
  const uplinks = new Map(picture.uplinks.map((one) => [one.id, one]));
  const boxes = new Map(picture.boxes.map((one) => [one.id, one]));
  const HUBS = { bridge: "bridge", parent: "parent", routed: "routed by the host", inside: "without a way to the host", gone: "gone" };
  const main = document.querySelector("main"), pane = byId("pane"), stage = byId("stage");
  const nodes = byId("nodes"), wires = byId("wires"), details = byId("details"), search = byId("search");
  const state = { query: "", open: new Map(), selected: "", hovered: "", current: "", view: "map" };
  let columns = {}, order = [], places = new Map(), height = 0, lit = new Set(), drawn = new Map();

  // Elements: text goes in as text, never as markup.
  const make = (tag, options = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(options)) {
      if (key === "class") made.className = value;
      else if (key in made && key !== "list") made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children.filter((one) => one !== null && one !== ""));
    return made;
  };
  const svg = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const portId = (box, number) => `p:${number}:${box.id}`;
  const isWrong = (box) => box.state !== "up" || box.legs.some((leg) => leg.problems.length);
  const counted = (number) => number.toLocaleString("en");

  // What a search looks through.
  const haystacks = new Map(picture.boxes.map((box) => [box.id, [
    box.container, box.short, box.state, box.namespace, ...box.ports,
    ...box.legs.flatMap((leg) => [leg.network, leg.ifname, leg.kind, leg.port, ...leg.addresses,
      ...leg.problems, ...leg.facts.flat()]),
    ...box.legs.map((leg) => hubs.get(leg.hub)?.name ?? ""),
  ].join("\n").toLowerCase()]));
  const words = () => state.query.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = () => {
    const wanted = words();
    if (!wanted.length) return picture.boxes;
    return picture.boxes.filter((box) => wanted.every((one) => haystacks.get(box.id).includes(one)));
  };

  // Layout: four columns, a row for each interface.
  const measure = () => {
    const width = Math.max(pane.clientWidth, 860), side = 24, free = width - 2 * side;
    const up = Math.round(free * .16), hub = Math.round(free * .24), port = 132;
    const box = Math.min(440, Math.round(free * .32)), gap = Math.round((free - up - hub - port - box) / 3);
    columns = {
      width, up: [side, up], hub: [side + up + gap, hub], port: [side + up + gap + hub + gap, port],
      box: [side + up + gap + hub + gap + port + gap, box],
    };
    const heads = document.querySelectorAll(".heads span");
    ["up", "hub", "port", "box"].forEach((name, index) => { heads[index].style.left = `${columns[name][0]}px`; });
  };
  const hubHeight = (hub) => 2 * PAD + 21 + 19 * (hub.addresses.length + 1) + 27 * hub.gauges.length;
  const boxHeight = (box) => 2 * PAD + HEAD + LEG * box.legs.length;
  const upHeight = (one) => 2 * PAD + 21 + 19 * (one.addresses.length + (one.up ? 0 : 1));
  const arrange = () => {
    measure();
    const groups = new Map(picture.hubs.map((one) => [one.id, []]));
    const found = matching();
    for (const box of found) groups.get(box.legs[0].hub).push(box);
    const used = new Set(found.flatMap((box) => box.legs.map((leg) => leg.hub)));
    places = new Map();
    order = [];
    let y = TOP;
    for (const [id, own] of groups) {
      if (state.query && !used.has(id)) continue;
      const hub = hubs.get(id), top = y, most = state.open.get(id) ?? FOLD;
      const shown = own.length > most + 1 ? own.slice(0, most) : own;
      for (const box of shown) {
        const at = { kind: "box", x: columns.box[0], y, w: columns.box[1], h: boxHeight(box), box };
        places.set(box.id, at);
        order.push(box.id);
        box.legs.forEach((leg, number) => {
          if (!leg.port) return;
          const middle = y + PAD + HEAD + LEG * number + LEG / 2;
          places.set(portId(box, number), { kind: "port", x: columns.port[0], y: middle - 10, w: columns.port[1], h: 20, box, leg, number });
        });
        y += at.h + BOX_GAP;
      }
      if (shown.length < own.length) {
        const more = `m:${id}`;
        places.set(more, { kind: "more", x: columns.box[0], y, w: columns.box[1], h: 36, hub, rest: own.slice(shown.length) });
        order.push(more);
        y += 36 + BOX_GAP;
      }
      const own_height = hubHeight(hub), bottom = Math.max(y - BOX_GAP, top + own_height);
      places.set(id, { kind: "hub", x: columns.hub[0], w: columns.hub[1], h: own_height, top, bottom, y: top, hub });
      y = bottom + GROUP_GAP;
    }
    height = Math.max(y, TOP + picture.uplinks.reduce((sum, one) => sum + upHeight(one) + BOX_GAP, 0));
    for (const one of picture.uplinks) places.set(one.id, { kind: "uplink", x: columns.up[0], w: columns.up[1], h: upHeight(one), y: 0, uplink: one });
    stage.style.height = `${height}px`;
    stage.style.minWidth = `${columns.width}px`;
    byId("found").textContent = state.query ? `${counted(found.length)} of ${counted(picture.boxes.length)}` : "";
    for (const made of drawn.values()) made.remove();
    drawn = new Map();
    draw();
  };

  // Hubs and ways out stay in sight while what belongs to them is.
  const settle = () => {
    const from = pane.scrollTop, view = pane.clientHeight;
    for (const at of places.values()) {
      if (at.kind !== "hub") continue;
      const start = Math.max(at.top, from + 8), end = Math.min(at.bottom, from + view - 8);
      const wanted = (start + end - at.h) / 2;
      at.y = Math.max(at.top, Math.min(wanted, at.bottom - at.h));
    }
    const ups = picture.uplinks.map((one) => places.get(one.id));
    const whole = ups.reduce((sum, at) => sum + at.h + BOX_GAP, -BOX_GAP);
    if (!ups.length) return;
    let y = Math.max(TOP, Math.min(from + (Math.min(view, height) - whole) / 2, height - whole - TOP));
    for (const at of ups) { at.y = y; y += at.h + BOX_GAP; }
  };
  const inSight = (at) => at.y + at.h > pane.scrollTop - AHEAD && at.y < pane.scrollTop + pane.clientHeight + AHEAD;

  const draw = () => {
    settle();
    const view = pane.clientHeight;
    wires.setAttribute("width", columns.width);
    wires.setAttribute("height", Math.min(view, height));
    wires.style.marginBottom = `${-Math.min(view, height)}px`;
    for (const [id, at] of places) {
      if (!inSight(at)) { drawn.get(id)?.remove(); drawn.delete(id); continue; }
      let made = drawn.get(id);
      if (!made) {
        made = element(id, at);
        drawn.set(id, made);
        nodes.append(made);
      }
      Object.assign(made.style, { left: `${at.x}px`, top: `${at.y}px`, width: `${at.w}px`, height: `${at.h}px` });
    }
    light();
    wire();
  };
  const wire = () => {
    const from = pane.scrollTop, paths = [];
    const curve = (a, b, kind, name, ay = a.y + a.h / 2, by = b.y + b.h / 2) => {
      const x1 = a.x + a.w, x2 = b.x, bend = (x2 - x1) / 2, y1 = ay - from, y2 = by - from;
      const on = name.every((one) => lit.has(one)) ? " lit" : "";
      paths.push(svg("path", { class: kind + on, d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}` }));
    };
    for (const [id, at] of places) {
      if (at.kind === "hub") {
        for (const up of at.hub.uplinks) curve(places.get(up), at, at.hub.joined.includes(up) ? "out" : "out routed", [up, id]);
      } else if (at.kind === "more" && inSight(at)) {
        curve(places.get(at.hub.id), at, "folded", [at.hub.id, id]);
      } else if (at.kind === "box" && inSight(at)) {
        at.box.legs.forEach((leg, number) => {
          const hub = places.get(leg.hub), name = portId(at.box, number), port = places.get(name);
          const kind = leg.state === "up" ? "leg" : "leg wrong";
          const middle = at.y + PAD + HEAD + LEG * number + LEG / 2;
          const begin = port ? [leg.hub, name] : [leg.hub, id];
          if (hub) curve(hub, port ?? at, kind, begin, hub.y + hub.h / 2, middle);
          if (port) curve(port, at, kind, [name, id], middle, middle);
        });
      }
    }
    wires.replaceChildren(...paths);
  };

  const mark = (name) => make("span", { class: `state ${name} keep`, title: name });
  const line = (...children) => make("span", { class: "line" }, ...children);
  const small = (text) => make("small", {}, text);
  const gauge = (one) => {
    const share = one.size ? Math.min(1, one.given / one.size) : 1;
    const bar = make("i");
    bar.style.width = one.given ? `${Math.max(1, share * 100)}%` : "0";
    if (!one.given) bar.style.minWidth = "0";
    return make("div", { class: `gauge${share >= 1 ? " full" : share > .85 ? " high" : ""}` }, bar);
  };
  const CONTENT = {
    uplink: ({ uplink }) => [line(make("strong", {}, uplink.name), uplink.up ? "" : make("span", { class: "badge down keep" }, "down")),
      ...uplink.addresses.map((one) => line(small(one)))],
    hub: ({ hub }) => [
      line(make("strong", {}, hub.name), make("span", { class: hub.up ? "badge keep" : "badge down keep" }, hub.up ? HUBS[hub.kind] : `${hub.kind}, down`)),
      ...hub.addresses.map((one) => line(small(one))),
      line(small(`network ${hub.networks.join(", ")}`)),
      ...hub.gauges.flatMap((one) => [line(small(`${one.subnet}: ${one.text.replace(" given,", ",")}`)), gauge(one)]),
    ],
    port: ({ leg }) => [line(small(leg.port))],
    box: ({ box }) => [
      line(mark(box.state), make("strong", {}, box.short),
        box.state === "up" ? "" : make("span", { class: `badge ${box.state} keep` }, box.state),
        ...box.ports.slice(0, 2).map((one) => make("span", { class: "chip" }, one)),
        box.ports.length > 2 ? make("span", { class: "badge keep" }, `+${box.ports.length - 2}`) : ""),
      ...box.legs.map((leg) => line(make("span", { class: "mono keep" }, leg.ifname), small(leg.addresses.join("  ") || leg.kind))),
    ],
    more: ({ rest, hub }) => [rest.length > MORE ? `show ${counted(MORE)} of ${counted(rest.length)} more on ${hub.name}` : `show ${counted(rest.length)} more on ${hub.name}`],
  };
  const label = (at) => ({
    uplink: () => `uplink ${at.uplink.name}`,
    hub: () => `${HUBS[at.hub.kind]} ${at.hub.name}`,
    port: () => `host end ${at.leg.port} of ${at.box.short}`,
    box: () => `container ${at.box.container}, ${at.box.state}`,
    more: () => `show more containers on ${at.hub.name}`,
  })[at.kind]();
  const element = (id, at) => {
    const wrong = at.kind === "box" ? isWrong(at.box) : at.kind === "hub" && !at.hub.up;
    const made = make("button", { type: "button", class: `node ${at.kind}${wrong ? " wrong" : ""}` }, ...CONTENT[at.kind](at));
    made.dataset.id = id;
    made.setAttribute("aria-label", label(at));
    made.title = at.kind === "box" ? at.box.container : at.kind === "more" ? "" : label(at);
    return made;
  };

  // Paths: all that leads from a node to the ways out, and to the containers.
  const path = (id) => {
    const found = new Set([id]), at = places.get(id);
    const upwards = (hub) => { found.add(hub); for (const up of hubs.get(hub)?.uplinks ?? []) found.add(up); };
    const whole = (box) => {
      found.add(box.id);
      box.legs.forEach((leg, number) => { found.add(portId(box, number)); upwards(leg.hub); });
    };
    const through = (hub) => {
      upwards(hub);
      found.add(`m:${hub}`);
      for (const box of picture.boxes) box.legs.forEach((leg, number) => {
        if (leg.hub === hub) { found.add(box.id); found.add(portId(box, number)); }
      });
    };
    if (boxes.has(id)) whole(boxes.get(id));
    else if (hubs.has(id)) through(id);
    else if (uplinks.has(id)) for (const hub of picture.hubs) { if (hub.uplinks.includes(id)) through(hub.id); }
    else if (at?.kind === "port") { found.add(at.box.id); upwards(at.leg.hub); }
    if (uplinks.has(id)) for (const other of uplinks.keys()) if (other !== id) found.delete(other);
    return found;
  };
  const light = () => {
    const chosen = state.selected || state.hovered;
    lit = chosen ? path(chosen) : new Set();
    pane.classList.toggle("lighting", lit.size > 0);
    if (!places.has(state.current)) state.current = order[0] ?? picture.hubs[0]?.id ?? "";
    for (const [id, made] of drawn) {
      made.classList.toggle("lit", lit.has(id));
      made.setAttribute("aria-pressed", String(id === state.selected));
      made.tabIndex = id === state.current ? 0 : -1;
    }
  };

  // Details.
  const facts = (pairs) => make("dl", {}, ...pairs.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  const button = (text, id) => {
    const made = make("button", { type: "button" }, text);
    made.addEventListener("click", () => go(id));
    return made;
  };
  const crumbs = (ids) => make("p", { class: "path" }, ...ids.flatMap(([text, id], index) => [index ? "→" : "", button(text, id)]));
  const wayOf = (box, leg, number) => crumbs([
    ...hubs.get(leg.hub).uplinks.map((up) => [uplinks.get(up).name, up]),
    [hubs.get(leg.hub).name, leg.hub],
    ...(leg.port ? [[leg.port, portId(box, number)]] : []),
    [`${leg.ifname} in ${box.short}`, box.id],
  ]);
  const wrongs = (texts) => texts.length ? make("ul", { class: "wrongs" }, ...texts.map((one) => make("li", {}, one))) : "";
  const list = (found) => make("div", { class: "list" }, ...found.slice(0, LISTED).map((box) => button(box.short, box.id)),
    found.length > LISTED ? make("span", { class: "badge" }, `and ${counted(found.length - LISTED)} more`) : "");
  const onHub = (id) => picture.boxes.filter((box) => box.legs.some((leg) => leg.hub === id));
  const TOLD = {
    box: (box) => [["container", box.container, box.state],
      wrongs(box.legs.flatMap((leg) => leg.problems)),
      box.ports.length ? make("div", { class: "chips" }, ...box.ports.map((one) => make("span", { class: "chip" }, one))) : "",
      ...box.legs.flatMap((leg, number) => [
        make("h3", {}, `${leg.ifname} on ${leg.network}`, make("span", { class: `badge ${leg.state}` }, leg.state)),
        wayOf(box, leg, number), make("p", {}, "\u00a0"), facts(leg.facts)])],
    port: (box, leg, number) => [["host end", leg.port, leg.state], wrongs(leg.problems), wayOf(box, leg, number),
      make("h3", {}, `${leg.ifname} of ${box.short}`), facts(leg.facts)],
    hub: (hub) => [[HUBS[hub.kind], hub.name, hub.up ? "up" : "down"],
      hub.uplinks.length ? crumbs([...hub.uplinks.map((up) => [uplinks.get(up).name, up]), [hub.name, hub.id]]) : "",
      make("h3", {}, "About it"),
      facts([...hub.facts, ["networks", hub.networks.join(", ")], ["way out", hub.joined.length ? "on the same link" : hub.uplinks.length ? (hub.masqueraded ? "routed and masqueraded" : "routed") : "none"]]),
      ...(hub.gauges.length ? [make("h3", {}, "Addresses"), make("div", { class: "gauges" }, ...hub.gauges.map((one) => make("div", {}, make("p", {}, `${one.subnet}: ${one.text}`), gauge(one))))] : []),
      make("h3", {}, `Containers: ${counted(onHub(hub.id).length)}`), list(onHub(hub.id))],
    uplink: (one) => [["way out", one.name, one.up ? "up" : "down"], make("h3", {}, "About it"), facts(one.facts),
      make("h3", {}, "What goes through it"), make("div", { class: "list" }, ...picture.hubs.filter((hub) => hub.uplinks.includes(one.id)).map((hub) => button(hub.name, hub.id)))],
  };
  const told = (id) => {
    if (boxes.has(id)) return TOLD.box(boxes.get(id));
    if (hubs.has(id)) return TOLD.hub(hubs.get(id));
    if (uplinks.has(id)) return TOLD.uplink(uplinks.get(id));
    const [, number, rest] = id.match(/^p:(\d+):(.*)$/s) ?? [], box = boxes.get(rest);
    return box ? TOLD.port(box, box.legs[number], Number(number)) : null;
  };
  const tell = (id) => {
    const found = id ? told(id) : null;
    main.classList.toggle("open", Boolean(found));
    if (!found) { details.replaceChildren(); return; }
    const [[kind, name, status], ...rest] = found;
    const close = make("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
    close.addEventListener("click", () => select(""));
    details.replaceChildren(make("header", {}, make("div", {}, make("p", { class: "kind" }, kind), make("h2", { class: name.length > 24 ? "long" : "" }, name)), make("span", { class: `badge ${status}` }, status), close), ...rest.filter(Boolean));
    details.firstChild.firstChild.style.flex = "1";
    details.scrollTop = 0;
  };
  const select = (id) => {
    state.selected = id;
    if (id) state.current = id;
    state.hovered = "";
    for (const row of document.querySelectorAll("tr[data-node]")) row.setAttribute("aria-selected", String(row.dataset.node === id));
    tell(id);
    requestAnimationFrame(arrange);
  };

  // Bring a node into sight, unfolding and unfiltering what hides it.
  const reveal = (id) => {
    const owner = places.get(id)?.box?.id ?? id;
    if (!places.has(id) && state.query) { state.query = search.value = ""; arrange(); filter(); }
    const box = boxes.get(id.startsWith("p:") ? id.replace(/^p:\d+:/, "") : owner);
    if (!places.has(id) && box) {
      const hub = box.legs[0].hub, own = picture.boxes.filter((one) => one.legs[0].hub === hub);
      state.open.set(hub, own.indexOf(box) + 3);
      arrange();
    }
    const at = places.get(id);
    if (!at) return;
    const top = at.kind === "hub" ? at.top : at.kind === "uplink" ? pane.scrollTop : at.y;
    const bottom = top + at.h;
    if (top < pane.scrollTop + 8 || bottom > pane.scrollTop + pane.clientHeight - 8) pane.scrollTop = Math.max(0, top - (pane.clientHeight - at.h) / 2);
    draw();
  };
  const go = (id) => { show("map"); select(id); requestAnimationFrame(() => { reveal(id); drawn.get(id)?.focus({ preventScroll: true }); }); };

  // Keys: up and down in a column, left and right along the path.
  const column = (kind) => [...places].filter(([, at]) => at.kind === kind || (kind === "box" && at.kind === "more")).map(([id]) => id);
  const beside = (id, key) => {
    const at = places.get(id);
    if (!at) return order[0];
    if (key === "ArrowUp" || key === "ArrowDown") {
      const own = column(at.kind === "more" ? "box" : at.kind), index = own.indexOf(id) + (key === "ArrowUp" ? -1 : 1);
      return own[index] ?? id;
    }
    const first = (found) => found ?? id, firstOn = (hub) => [...places].find(([, one]) => one.box?.legs.some((leg) => leg.hub === hub))?.[0];
    if (key === "ArrowRight") return first({
      uplink: () => picture.hubs.find((hub) => hub.uplinks.includes(id) && places.has(hub.id))?.id,
      hub: () => { const box = order.find((one) => boxes.get(one)?.legs[0].hub === id); const number = box ? boxes.get(box).legs.findIndex((leg) => leg.hub === id) : -1; const port = number < 0 ? "" : portId(boxes.get(box), number); return places.has(port) ? port : box ?? firstOn(id); },
      port: () => at.box.id,
    }[at.kind]?.());
    return first({
      box: () => { const port = portId(at.box, 0); return places.has(port) ? port : at.box.legs[0].hub; },
      more: () => at.hub.id, port: () => at.leg.hub, hub: () => at.hub.uplinks[0],
    }[at.kind]?.());
  };
  nodes.addEventListener("keydown", (event) => {
    if (!/^Arrow/.test(event.key)) return;
    event.preventDefault();
    const id = beside(event.target.closest(".node").dataset.id, event.key);
    state.current = id;
    reveal(id);
    drawn.get(id)?.focus({ preventScroll: true });
    if (state.selected && !id.startsWith("m:")) select(id);
    requestAnimationFrame(() => drawn.get(id)?.focus({ preventScroll: true }));
  });
  nodes.addEventListener("click", (event) => {
    const made = event.target.closest(".node");
    if (!made) return;
    const id = made.dataset.id, at = places.get(id);
    if (at.kind === "more") {
      const shown = order.filter((one) => boxes.get(one)?.legs[0].hub === at.hub.id).length;
      state.open.set(at.hub.id, shown + MORE);
      arrange();
      drawn.get(at.rest[0].id)?.focus({ preventScroll: true });
      return;
    }
    select(state.selected === id ? "" : id);
    requestAnimationFrame(() => requestAnimationFrame(() => drawn.get(id)?.focus({ preventScroll: true })));
  });
  nodes.addEventListener("pointerover", (event) => {
    const id = event.target.closest(".node")?.dataset.id ?? "";
    if (state.selected || id === state.hovered || id.startsWith("m:")) return;
    state.hovered = id;
    light();
    wire();
  });
  nodes.addEventListener("pointerleave", () => { if (state.hovered) { state.hovered = ""; light(); wire(); } });
  pane.addEventListener("click", (event) => { if (event.target === pane || event.target === stage || event.target === nodes) select(""); });

  // Search, in the map and in the tables.
  const rows = [...document.querySelectorAll(".table tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const wanted = words();
    const found = new Set(wanted.length ? matching().map((box) => box.id) : []);
    for (const [row, text] of rows) row.hidden = wanted.length > 0 && !found.has(row.dataset.node) && !wanted.every((one) => text.includes(one));
  };
  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = search.value.trim(); pane.scrollTop = 0; arrange(); filter(); }, 60);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      state.query = search.value.trim();
      const first = matching()[0];
      if (first) { arrange(); filter(); show("map"); select(first.id); }
    } else if (event.key === "Escape") {
      event.stopPropagation();
      search.value = state.query = "";
      arrange();
      filter();
      search.blur();
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search && !event.ctrlKey && !event.metaKey) { event.preventDefault(); search.focus(); search.select(); }
    if (event.key === "Escape" && state.selected) { const id = state.selected; select(""); requestAnimationFrame(() => requestAnimationFrame(() => drawn.get(id)?.focus({ preventScroll: true }))); }
  });

  // Views.
  const show = (name) => {
    state.view = name;
    for (const view of document.querySelectorAll(".view")) view.classList.toggle("shown", view.id === name);
    for (const tab of document.querySelectorAll(".tabs a")) {
      if (tab.hash === `#${name}`) tab.setAttribute("aria-current", "page"); else tab.removeAttribute("aria-current");
    }
    if (name === "map") requestAnimationFrame(arrange);
  };
  byId("tabs").addEventListener("click", (event) => {
    const tab = event.target.closest("a");
    if (tab) { event.preventDefault(); show(tab.hash.slice(1)); }
  });
  for (const [row] of rows) {
    if (!row.dataset.node) continue;
    row.tabIndex = 0;
    row.addEventListener("click", () => select(row.dataset.node));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") select(row.dataset.node); });
  }

  // Light and dark.
  const THEMES = ["auto", "light", "dark"];
  const theme = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    byId("theme-name").textContent = name;
    try { localStorage.setItem("cni-py-theme", name); } catch { /* a page from a file may have no storage */ }
  };
  byId("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(byId("theme-name").textContent) + 1) % THEMES.length]));
  let kept = null;
  try { kept = localStorage.getItem("cni-py-theme"); } catch { kept = null; }
  if (THEMES.includes(kept)) theme(kept);

  root.classList.add("js");
  if (!picture.boxes.length) nodes.after(make("p", { class: "empty" }, "Nothing is attached on this host."));
  if (!picture.uplinks.length && picture.boxes.length) nodes.after(make("p", { class: "no-way" }, "no default route"));
  const above = () => root.style.setProperty("--above", `${main.getBoundingClientRect().top + window.scrollY}px`);
  let frame = 0;
  pane.addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(draw); }, { passive: true });
  new ResizeObserver(() => { above(); if (state.view === "map") arrange(); }).observe(pane);
  window.addEventListener("resize", above);
  show("map");
  above();
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (boxes.has(`c:${wanted}`)) go(`c:${wanted}`);
})();
