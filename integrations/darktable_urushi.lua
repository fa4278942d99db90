--[[
Mends the selected pictures with Urushi, from within darktable (4.2 or newer).

A module "urushi" on the right of the lighttable exports what is selected as TIFF of 16 bits, as it
was developed, runs  urushi restore  on that, and imports NAME_urushi.tif beside the original, in
its group. Task, strength and router are remembered. What went wrong is shown, and stays in the
module until the next run.

Install: put this file into the folder "lua" of darktable's configuration, and into the file
"luarc" beside that folder the line  require "darktable_urushi"  . Where the program urushi is not
found: preferences > Lua options > urushi: program.

SPDX-License-Identifier: Apache-2.0
]]

local dt = require "darktable"

local NAME = "urushi"
local WINDOWS = dt.configuration.running_os == "windows"
-- Of one call: a TIFF of 24 megapixels takes 150 MB, and a command line of Windows 8191 characters.
local AT_ONCE = 8
local LONGEST = 7500
-- Those of the file that ships; another router may have more: its names can be typed.
local TASKS = {
  "auto", "none", "noise", "jpeg", "blur", "rain", "raindrop", "snow", "haze", "low-light",
}

local M = { tasks = TASKS }

-- Quoting ---------------------------------------------------------------------------------------

--- One word for  sh  .
function M.quoted_for_sh(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- One word for programs that cmd.exe starts: it takes %NAME% for a variable within quotes, too,
--- and not where ^ stands before the %. A program takes \" for a quote.
function M.quoted_for_cmd(text)
  local word = text:gsub('(\\*)"', '%1%1\\"'):gsub("(\\*)%%", '%1%1"^%%"')
  return '"' .. word:gsub("(\\*)$", "%1%1") .. '"'
end

local quoted = WINDOWS and M.quoted_for_cmd or M.quoted_for_sh

--- A whole line as darktable has to get it: cmd.exe takes away the first and the last quote.
local function line_of(words)
  local line = table.concat(words, " ")
  return WINDOWS and '"' .. line .. '"' or line
end

local function joined(folder, name)
  return folder .. (WINDOWS and "\\" or "/") .. name
end

--- The command that restores pictures into a folder, and writes what it says into a file.
---@param settings table program, task, strength (0 to 1), router (a file, or empty)
function M.command(settings, sources, folder, log)
  -- White is known here. A dark picture of 16 bits could else be one of which only 14 are used.
  local words = { quoted(settings.program), "restore --white 65535" }
  table.insert(words, "--task " .. quoted(settings.task))
  -- A slider is not exact, and in some languages numbers have a comma.
  local strength = string.format("%.2f", settings.strength):gsub(",", ".")
  if strength ~= "1.00" then
    table.insert(words, "--strength " .. strength)
  end
  if settings.router ~= "" then
    table.insert(words, "--router " .. quoted(settings.router))
  end
  table.insert(words, "-o " .. quoted(folder))
  for _, source in ipairs(sources) do
    table.insert(words, quoted(source))
  end
  table.insert(words, "> " .. quoted(log) .. " 2>&1")
  return line_of(words)
end

-- Files -----------------------------------------------------------------------------------------

local function is_file(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
  end
  return file ~= nil
end

local made = 0

--- A new folder for files that do not stay.
local function new_folder()
  made = made + 1
  local name = string.format("%s-%d-%d-%d", NAME, os.time(), math.random(0, 999999), made)
  local folder = joined(dt.configuration.tmp_dir, name)
  if dt.control.execute(line_of { "mkdir", quoted(folder) }) ~= 0 then
    error("cannot make the folder " .. folder, 0)
  end
  return folder
end

local function remove_folder(folder, files)
  for _, path in ipairs(files) do
    os.remove(path)
  end
  dt.control.execute(line_of { "rmdir", quoted(folder) })
end

--- What a result is called: a name that neither the film roll nor the folder has.
local function free_name(image, taken)
  local stem = image.filename:gsub("%.[^.]*$", "")
  local number = 0
  while true do
    local name = stem .. "_urushi" .. (number > 0 and "_" .. number or "") .. ".tif"
    if not taken[name:lower()] and not is_file(joined(image.path, name)) then
      taken[name:lower()] = true
      return name
    end
    number = number + 1
  end
end

local function names_in(film)
  local taken = {}
  for index = 1, #film do
    taken[film[index].filename:lower()] = true
  end
  return taken
end

-- Restoring -------------------------------------------------------------------------------------

--- Pictures of one folder each, as many as one call takes: {path, {{image, name}, ...}}.
function M.calls_for(images)
  local calls, open, taken = {}, {}, {}
  for _, image in ipairs(images) do
    local path = image.path
    taken[path] = taken[path] or names_in(image.film)
    local name = free_name(image, taken[path])
    local call = open[path]
    local length = #dt.configuration.tmp_dir + #name + 60
    if not call or #call.items == AT_ONCE or call.length + length > LONGEST then
      call = { path = path, items = {}, length = #path + 400 }
      open[path] = call
      table.insert(calls, call)
    end
    call.length = call.length + length
    table.insert(call.items, { image = image, name = name })
  end
  return calls
end

--- The lines of a file, as UTF-8.
local function lines_of(path)
  local lines, file = {}, io.open(path, "r")
  if file then
    for line in file:lines() do
      table.insert(lines, utf8.len(line) and line or (line:gsub("[\128-\255]", "?")))
    end
    file:close()
  end
  return lines
end

--- What of the command's words the user must know; paths of the folder are shortened to names.
local function told_of(lines, code, folder)
  local told, last = {}, nil
  local start = joined(folder, "")
  for _, line in ipairs(lines) do
    local from, to = line:find(start, 1, true)
    if from then
      line = line:sub(1, from - 1) .. line:sub(to + 1)
    end
    if line:match("^failed: ") or line:match("^note: ") or line:match("^[Ee]rror: ") then
      table.insert(told, line)
    end
    last = line:match("%S") and line or last
  end
  if code ~= 0 and #told == 0 then
    table.insert(told, last or "the program urushi ended with code " .. code)
  end
  return told
end

local function add(list, more)
  for _, item in ipairs(more) do
    table.insert(list, item)
  end
end

--- Exports, restores and imports the pictures of one call.
local function run_call(call, settings, report, goes_on)
  local folder = new_folder()
  local log = joined(folder, "urushi.log")
  local format = dt.new_format("tiff")
  format.bpp = 16
  local sources, items = {}, {}
  for _, item in ipairs(call.items) do
    local source = joined(folder, item.name)
    if not goes_on() then
      break
    end
    -- What this returns differs between versions, so the file is looked for.
    format:write_image(item.image, source, false)
    if is_file(source) or WINDOWS then
      table.insert(sources, source)
      table.insert(items, item)
    else
      table.insert(report.told, "failed: " .. item.image.filename .. ": darktable cannot export it")
      report.failed = true
    end
  end
  if #sources > 0 and goes_on() then
    local command = M.command(settings, sources, call.path, log)
    dt.print_log(command)
    local code = dt.control.execute(command)
    local lines = lines_of(log)
    dt.print_log(table.concat(lines, "\n"))
    add(report.told, told_of(lines, code, folder))
    report.failed = report.failed or code ~= 0
    for _, item in ipairs(items) do
      local target = joined(call.path, item.name)
      -- io.open of Windows does not find every name that there is.
      if is_file(target) or (WINDOWS and code == 0) then
        local result = dt.database.import(target)
        if result then
          result:group_with(item.image)
          report.restored = report.restored + 1
        else
          table.insert(report.told, "failed: " .. target .. ": darktable cannot import it")
          report.failed = true
        end
      end
    end
  end
  table.insert(sources, log)
  remove_folder(folder, sources)
end

--- Restores pictures with a progress bar; returns what came of it: restored, failed, told.
function M.restore(images, settings)
  local report = { restored = 0, failed = false, told = {} }
  local stopped = false
  local job = dt.gui.create_job("urushi restores " .. #images .. " pictures", true, function(this)
    stopped = true
    this.valid = false
  end)
  local function goes_on()
    return not stopped and not dt.control.ending
  end
  local done = 0
  for _, call in ipairs(M.calls_for(images)) do
    if goes_on() then
      local fine, message = pcall(run_call, call, settings, report, goes_on)
      if not fine then
        report.failed = true
        table.insert(report.told, "failed: " .. tostring(message))
      end
      done = done + #call.items
      if goes_on() then
        job.percent = done / #images
      end
    end
  end
  if not stopped then
    job.valid = false
  end
  return report
end

--- What a report says: how many were restored; and all the rest, a line each.
function M.sentences(report, count)
  local short = string.format("%d of %d pictures restored", report.restored, count)
  local lines = { "urushi: " .. short }
  add(lines, report.told)
  local last = lines[#lines]
  if report.failed and (last:match("not found") or last:match("not recognized")) then
    table.insert(lines, "name the program in preferences > Lua options > urushi: program")
  end
  if #lines > 1 then
    short = short .. ", see here"
  end
  return short, lines
end

-- The module ------------------------------------------------------------------------------------

local function remembered(key, otherwise)
  local value = dt.preferences.read(NAME, key, "string")
  return value ~= nil and value ~= "" and value or otherwise
end

local function settings_now(widgets)
  local settings = {
    program = remembered("program", NAME),
    task = widgets.task.value,
    strength = widgets.strength.value,
    router = widgets.router.text,
  }
  dt.preferences.write(NAME, "task", "string", settings.task)
  local percent = string.format("%d", math.floor(settings.strength * 100 + 0.5))
  dt.preferences.write(NAME, "strength", "string", percent)
  dt.preferences.write(NAME, "router", "string", settings.router)
  return settings
end

local function pressed(widgets)
  local images = dt.gui.selection()
  local settings = settings_now(widgets)
  if #images == 0 then
    dt.print("urushi: select the pictures that are to be restored")
    return
  end
  local report = M.restore(images, settings)
  local short, lines = M.sentences(report, #images)
  local text = table.concat(lines, "\n")
  widgets.said.label, widgets.said.tooltip = short, text
  dt.print(text)
  if #report.told > 0 then
    dt.print_error(text)
  end
end

local function task_box()
  local chosen, values = 1, {}
  add(values, TASKS)
  local before = remembered("task", "auto")
  for index, name in ipairs(TASKS) do
    chosen = name == before and index or chosen
  end
  if TASKS[chosen] ~= before then
    table.insert(values, before)
    chosen = #values
  end
  local box = dt.new_widget("combobox") {
    label = "task",
    tooltip = "auto: what each picture needs; none: the base alone; or one expert for all",
    editable = true,
    table.unpack(values),
  }
  box.selected = chosen
  return box
end

--- A table has no order: what darktable must get in one is set field by field. A value that comes
--- before its limits is lost.
local function strength_slider()
  local slider = dt.new_widget("slider") {
    label = "strength",
    tooltip = "0 leaves the picture as it was, 1 keeps all that is changed",
  }
  slider.hard_min = 0
  slider.hard_max = 1
  slider.soft_min = 0
  slider.soft_max = 1
  slider.digits = 2
  slider.step = 0.05
  slider.value = tonumber(remembered("strength", "100")) / 100
  return slider
end

function M.widgets()
  local widgets = {
    task = task_box(),
    strength = strength_slider(),
    router = dt.new_widget("entry") {
      text = remembered("router", ""),
      placeholder = "router: the one that ships",
      tooltip = "an all-in-one file whose router chooses; empty: the one that ships",
    },
    said = dt.new_widget("label") { label = "", halign = "start", ellipsize = "end" },
  }
  widgets.button = dt.new_widget("button") {
    label = "restore",
    tooltip = "export the selected pictures, restore them, import the results",
    clicked_callback = function()
      pressed(widgets)
    end,
  }
  return widgets
end

local installed = false

local function install()
  if installed then
    return
  end
  installed = true
  local widgets = M.widgets()
  M.shown = widgets
  dt.register_lib(
    NAME, NAME, true, false,
    { [dt.gui.views.lighttable] = { "DT_UI_CONTAINER_PANEL_RIGHT_CENTER", 100 } },
    dt.new_widget("box") {
      orientation = "vertical",
      widgets.task, widgets.strength, widgets.router, widgets.button, widgets.said,
    }
  )
end

dt.preferences.register(
  NAME, "program", "string", "urushi: program",
  "the program urushi, with its folder where it is not found by name", NAME
)

if dt.configuration.has_gui then
  if dt.gui.current_view().id == "lighttable" then
    install()
  else
    dt.register_event(NAME, "view-changed", function(_, _, view)
      if view.id == "lighttable" then
        install()
      end
    end)
  end
end

-- For darktable's script manager.
M.metadata = { name = NAME, purpose = "mend the selected pictures", author = "Urushi" }
M.destroy_method = "hide"
M.destroy = function()
  dt.gui.libs[NAME].visible = false
end
M.restart = function()
  dt.gui.libs[NAME].visible = true
end
M.show = M.restart

return M
