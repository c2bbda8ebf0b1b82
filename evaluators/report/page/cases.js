// The case browser: choices narrow the list of cases down, and a case shows all that is known of its edit.
(() => {
  const room = document.getElementById("cases-room");
  const PAGE = 25;
  let data, settings, form, list, opened;

  /** A setting of a cell, as people read it and links say it. */
  function settingOf(cell) {
    const name = part => data.names[part];
    const parts = [name(cell.dataset), name(cell.model), name(cell.protocol)];
    if (cell.edits > 1) parts.push(cell.edits + " edits");
    if (cell.seed) parts.push("seed " + cell.seed);
    if (cell.order) parts.push("order " + cell.order);
    return parts.join(" · ");
  }

  function failed(value, [, unit, better]) {
    if (value === null || value === undefined) return undefined;
    if (typeof value !== "number") return true;
    if (unit !== "share") return undefined;
    return better === "higher" ? value < 1 : value > 0;
  }

  /** The cases that the choices leave: a cell and a place in it, each. */
  function* chosen(choices) {
    const metric = metricOf(choices);
    const find = (choices.find || "").toLocaleLowerCase();
    for (const cell of data.cells) {
      if (cell.setting !== (choices.at || settings[0])) continue;
      if (choices.editor && data.names[cell.editor] !== choices.editor) continue;
      const values = cell.scores[metric];
      for (let place = 0; place < cell.cases.length; place++) {
        const value = values?.[place];
        if (choices.show && failed(value, data.metrics[metric]) !== (choices.show === "failures")) continue;
        const relation = data.relations[cell.answers?.relation[place]];
        if (choices.relation && relation !== choices.relation) continue;
        if (find && ![data.cases[cell.cases[place]], data.subjects[cell.subjects[place]]].some(
          each => each.toLocaleLowerCase().includes(find))) continue;
        yield {cell, place, value, relation};
      }
    }
  }

  function metricOf(choices) {
    const wanted = choices.metric || "reliability." + root.dataset.way;
    const found = data.metrics.findIndex(each => each[0] === wanted);
    return found >= 0 ? found : data.order[0];
  }

  function linkTo(changes) {
    const query = new URLSearchParams(readState().choices);
    for (const [name, value] of Object.entries(changes)) if (value === undefined) query.delete(name); else query.set(name, value);
    return "#cases?" + query;
  }

  function showList(choices) {
    const metric = metricOf(choices);
    const found = [...chosen(choices)];
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const page = Math.min(pages, Math.max(1, parseInt(choices.page, 10) || 1));
    const hasRelation = data.relations.length > 0;
    const rows = found.slice((page - 1) * PAGE, page * PAGE).map(({cell, place, value, relation}) => {
      const id = data.cases[cell.cases[place]], editor = data.names[cell.editor];
      const bad = failed(value, data.metrics[metric]);
      const score = make("span", {class: bad ? "bad" : bad === false ? "good" : undefined},
        shown(value, data.metrics[metric][1]) + (bad ? " ✗" : bad === false ? " ✓" : ""));
      return [make("a", {href: linkTo({case: id, of: editor})}, text(id)), data.subjects[cell.subjects[place]], editor,
        ...(hasRelation ? [relation ?? "-"] : []), score];
    });
    const capped = data.cells.filter(cell => cell.setting === (choices.at || settings[0]) && cell.total > cell.cases.length);
    const told = `${found.length.toLocaleString("en")} ${found.length === 1 ? "case" : "cases"}` + (capped.length
      ? `; this page carries the first ${capped[0].cases.length.toLocaleString("en")} of each editor's ${capped[0].total.toLocaleString("en")}` : "");
    const turn = (to, label) => make("button", {type: "button", disabled: to < 1 || to > pages,
      onclick: () => choose({page: to > 1 ? to : undefined, case: undefined, of: undefined}, "cases", true)}, label);
    list.replaceChildren(make("p", {class: "note", role: "status"}, told),
      makeTable("Cases", ["case", "subject", "editor", ...(hasRelation ? ["relation"] : []), data.metrics[metric]?.[0] ?? "score"], rows),
      make("div", {class: "pages"}, turn(page - 1, "Previous"), make("span", {}, `page ${page} of ${pages}`), turn(page + 1, "Next")));
  }

  function showCase(choices) {
    if (!choices.case) { opened.replaceChildren(); return; }
    const id = data.cases.indexOf(choices.case);
    const cells = data.cells.filter(cell => cell.setting === (choices.at || settings[0]) && cell.cases.includes(id));
    if (!cells.length) {
      opened.replaceChildren(make("p", {class: "told", role: "status"}, "There is no such case in this setting: ", text(choices.case)));
      return;
    }
    const own = cells.find(cell => data.names[cell.editor] === choices.of) ?? cells[0];
    const place = own.cases.indexOf(id);
    const title = make("h3", {tabindex: "-1"}, text(choices.case), ": ", text(data.subjects[own.subjects[place]]));
    const facts = [["edited by", data.names[own.editor]], ["in", own.setting],
      ["relation", data.relations[own.answers?.relation[place]]],
      ["patch norm", own.answers && shown(own.answers.norm[place])],
      ["seconds", own.answers && shown(own.answers.seconds[place])]]
      .filter(([, value]) => value !== undefined && value !== null && value !== "-")
      .map(([name, value]) => make("li", {}, name + " ", text(value)));
    const close = make("button", {type: "button", onclick: () => {
      choose({case: undefined, of: undefined}, "cases", true);
      list.querySelector("a")?.focus();
    }}, "Close");
    opened.replaceChildren(make("article", {class: "case"}, title, make("ul", {class: "facts"}, ...facts),
      answersOf(own, place), scoresOf(cells, id), close));
    if (opened.dataset.at !== choices.case + choices.of) {
      opened.dataset.at = choices.case + choices.of;
      title.scrollIntoView({block: "center"});
      title.focus({preventScroll: true});
    }
  }

  /** Every question of a case, and what was said before and after the edit. */
  function answersOf(cell, place) {
    const asked = cell.answers;
    if (!asked?.case) return make("p", {class: "note"}, "What the models said is not in this store.");
    const rows = [], wrote = asked.edited_written.some(each => each !== null);
    for (let row = 0; row < asked.case.length; row++) {
      if (asked.case[row] !== place) continue;
      const said = name => asked[name][row] === null ? "-" : data.texts[asked[name][row]];
      const right = asked.right[row];
      const written = wrote ? [said("unedited_written"), said("edited_written")] : [];
      rows.push([said("question"), said("prompt"), said("target"), said("unedited"), said("edited"), ...written,
        right === null ? "-" : make("span", {class: right >= 1 ? "good" : "bad"}, right >= 1 ? "✓ yes" : right > 0 ? `in part (${shown(right, "share")} %)` : "✗ no")]);
    }
    return makeTable("Questions and answers", ["question", "prompt", "target", "unedited model", "edited model",
      ...(wrote ? ["unedited, written freely", "edited, written freely"] : []), "right"], rows);
  }

  /** All scores of a case, by all editors of the setting. */
  function scoresOf(cells, id) {
    const places = cells.map(cell => cell.cases.indexOf(id));
    const rows = data.order.map(metric => [data.metrics[metric][0], ...cells.map((cell, number) =>
      shown(cell.scores[metric]?.[places[number]], data.metrics[metric][1]))])
      .filter(row => row.slice(1).some(each => each !== "-"));
    return makeTable("Scores of this case by all editors (shares in percent)", ["metric", ...cells.map(cell => data.names[cell.editor])], rows);
  }

  function showForm() {
    const change = event => choose({[event.target.name]: event.target.value, page: undefined, case: undefined, of: undefined}, "cases");
    const options = values => values.map(value => [value, value]);
    const editors = [...new Set(data.cells.map(cell => data.names[cell.editor]))];
    form = make("div", {class: "control", role: "search", "aria-label": "Cases"},
      makeSelect("Setting", "at", settings.map((each, place) => [place ? each : "", each]), change),
      makeSelect("Editor", "editor", [["", "all editors"], ...options(editors)], change),
      makeSelect("Metric", "metric", [["", "reliability, as counted above"], ...options(data.order.map(each => data.metrics[each][0]))], change),
      makeSelect("Show", "show", [["", "all cases"], ["failures", "failures"], ["successes", "successes"]], change),
      data.relations.length ? makeSelect("Relation", "relation", [["", "all relations"], ...options([...data.relations].sort())], change) : null,
      make("label", {}, "Case or subject", make("input", {type: "search", name: "find", oninput: change})));
    list = make("div", {});
    opened = make("div", {});
    room.replaceChildren(form, opened, list);
  }

  function update({choices}) {
    for (const field of form.querySelectorAll("select, input")) {
      const value = choices[field.name] ?? "";
      if (field.value !== value) field.value = value;
    }
    showList(choices);
    showCase(choices);
  }

  contents().then(found => {
    data = found;
    if (!data.cells.length) {
      room.replaceChildren(make("p", {class: "told"}, "No case is scored yet."));
      return;
    }
    for (const cell of data.cells) cell.setting = settingOf(cell);
    settings = [...new Set(data.cells.map(cell => cell.setting))];
    settings.sort((first, second) => second.includes(" · single") - first.includes(" · single"));
    showForm();
    listeners.push(update);
    update(readState());
  });
})();
